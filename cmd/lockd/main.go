// Command lockd is the lock server. It takes its settings from the environment and the file .env: see .env.example.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"resource-lock-manager/internal/app"
	"resource-lock-manager/internal/config"
)

//	@title			Resource Lock Manager
//	@version		1.0.0
//	@description	Exclusive, expiring locks on named resources. Failures are told apart by `code`, never by their text.
//	@license.name	MIT
//	@tag.name		locks
//	@tag.description	Acquire, release and see locks
//	@tag.name		health
//	@tag.description	For probes

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is the program. It returns the exit code: 0 after a shutdown by signal, 1 when it could not start, go on, or finish
// what it had accepted in time, 2 for a wrong command line.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("lockd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	envFile := flags.String("env-file", ".env", "`file` with settings; the environment wins over it")
	version := flags.Bool("version", false, "print the version and exit")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp: //nolint:errorlint // the flag package returns it bare
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "lockd: takes no arguments, got %q\n", flags.Args())
		return 2
	case *version:
		fmt.Fprintln(stdout, "lockd", buildVersion())
		return 0
	}
	if *envFile != ".env" { // only the default may be missing
		if _, err := os.Stat(*envFile); err != nil {
			fmt.Fprintln(stderr, "lockd:", err)
			return 1
		}
	}
	cfg, err := config.Load(environ, *envFile)
	if err != nil {
		fmt.Fprintln(stderr, "lockd:", err)
		return 1
	}
	if err := serve(ctx, cfg, newLogger(cfg, stderr)); err != nil {
		fmt.Fprintln(stderr, "lockd:", err)
		return 1
	}
	return 0
}

// ballast is memory that is never touched, so that it costs address space only. It counts for the garbage collector, which
// lets as much garbage pile up as there is in use before it runs: a server with few locks would run it dozens of times a second.
const ballast = 32 << 20

// serve runs the server until ctx ends.
func serve(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	defer runtime.KeepAlive(make([]byte, ballast))
	server, err := app.Start(ctx, cfg, log)
	if err != nil {
		return err
	}
	log.Info("listening", "address", "http://"+server.Address(), "docs", "http://"+server.Address()+"/docs", "database", cfg.Database)
	select {
	case <-ctx.Done():
		log.Info("shutting down: finishing what was accepted")
		err = server.Stop()
	case err = <-server.Failed():
		_ = server.Stop() // the first error tells more
	}
	if err == nil {
		log.Info("stopped")
	}
	return err
}

func newLogger(cfg config.Config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == config.LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
