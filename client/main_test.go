package client_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"resource-lock-manager/internal/app"
	"resource-lock-manager/internal/config"
	"resource-lock-manager/internal/testdb"
)

// TestMain starts the server for the examples.
func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "client")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	server, err := startServer("sqlite:///" + filepath.Join(dir, "locks.db"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = server.Stop() }()
	if err := os.Setenv("LOCKCTL_URL", "http://"+server.Address()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return testdb.Main(m)
}

// startServer starts a lock server in this process.
func startServer(database string, settings ...string) (*app.App, error) {
	settings = append(settings, "DATABASE_URL="+database, "PORT=0")
	cfg, err := config.Load(settings, config.DefaultFile)
	if err != nil {
		return nil, err
	}
	return app.Start(context.Background(), cfg, slog.New(slog.DiscardHandler))
}
