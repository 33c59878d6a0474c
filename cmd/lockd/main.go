// Command lockd is the lock server. It reads its settings from the environment and the
// file .env: see .env.example.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"resource-lock-manager/internal/app"
	"resource-lock-manager/internal/config"
	"resource-lock-manager/internal/logbuffer"
	"resource-lock-manager/internal/version"
)

//	@title			Resource Lock Manager
//	@description	Exclusive, expiring locks on named resources. Decide by `code`, never by the text of a failure.
//	@license.name	MIT
//	@tag.name		locks
//	@tag.description	Acquire, release and see locks
//	@tag.name		health
//	@tag.description	For probes

func main() {
	// If the reader of the log ends, the write must fail and the server must go on.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(untilSignal(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// sameSignal is the period in which several signals count as one. make forwards to the
// server a signal that the process group has received already.
const sameSignal = 200 * time.Millisecond

// untilSignal returns a context that ends at SIGINT, SIGTERM, or SIGHUP unless SIGHUP is
// ignored, as nohup does. SIGINT or SIGTERM after that ends the process at once. A second
// SIGHUP does not: when a terminal closes, both the kernel and the shell send one.
func untilSignal() context.Context {
	ctx := context.Background()
	if !signal.Ignored(syscall.SIGHUP) {
		ctx, _ = signal.NotifyContext(ctx, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { time.AfterFunc(sameSignal, stop) })
	return ctx
}

// run is the program. It returns the exit code: 0 after a shutdown by signal, 1 if lockd
// could not start, could not go on, or could not finish accepted requests in time, 2 for
// a wrong command line.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	var cfg config.Config
	log := logbuffer.New(stderr, func(w io.Writer, dropped int64, cause error) {
		level := max(slog.LevelWarn, cfg.LogLevel) // this is logged at every level
		newLogger(cfg, w).Log(ctx, level, "log records were dropped", "dropped", dropped, "error", cause)
	})
	defer log.Stop()
	flags := flag.NewFlagSet("lockd", flag.ContinueOnError)
	flags.SetOutput(log)
	envFile := flags.String("env-file", config.DefaultFile, "`file` with settings; the environment wins over it")
	showVersion := flags.Bool("version", false, "print the version and exit")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp: //nolint:errorlint // the flag package returns it bare
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(log, "lockd: takes no arguments, got %q\n", flags.Args())
		return 2
	case *envFile == "":
		fmt.Fprintln(log, "lockd: -env-file: want the name of a file")
		return 2
	case *showVersion:
		fmt.Fprintln(stdout, "lockd", version.String())
		return 0
	}
	var err error
	if cfg, err = config.Load(environ, *envFile); err != nil {
		fmt.Fprintln(log, "lockd:", err)
		return 1
	}
	log.Start()
	if err := serve(ctx, cfg, newLogger(cfg, log)); err != nil {
		fmt.Fprintln(log, "lockd:", err)
		return 1
	}
	return 0
}

// ballast is memory that is never touched, so it costs address space only. The garbage
// collector runs when the garbage is as large as the memory in use. Without ballast a
// server with few locks would collect garbage dozens of times a second.
const ballast = 32 << 20

// serve runs the server until ctx ends.
func serve(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	defer runtime.KeepAlive(make([]byte, ballast))
	server, err := app.Start(ctx, cfg, log)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		log.Info("stopped", "while", "starting")
		return nil
	}
	if err != nil {
		return err
	}
	log.Info("listening", "address", "http://"+server.Address(), "docs", "http://"+server.Address()+"/docs",
		"database", cfg.Database)
	select {
	case <-ctx.Done():
		log.Info("shutting down: finishing what was accepted")
		err = server.Stop()
	case err = <-server.Failed():
		_ = server.Stop() // the first error is the cause
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
