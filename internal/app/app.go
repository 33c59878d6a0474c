// Package app composes the program from its parts. It owns the order in which they start
// and stop.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"resource-lock-manager/internal/api"
	"resource-lock-manager/internal/config"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/notify"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/sweep"
)

// App is the running server. Make one with Start and end it with Stop.
type App struct {
	cfg     config.Config
	store   *store.Store
	service *service.Service
	sweeper *sweep.Sweeper
	listen  *notify.Listener // nil without notifications
	server  *http.Server
	address net.Addr
	failed  chan error
}

// keepAlive detects within half a minute that the machine of a waiting client has failed.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// Start opens the port and the database, and serves requests when it returns. Its error
// states the cause in one line: the port is taken, the database cannot be reached or
// written.
func Start(ctx context.Context, cfg config.Config, log *slog.Logger) (*App, error) {
	// The port first: a server that cannot serve does not touch the database.
	listener, err := (&net.ListenConfig{KeepAliveConfig: keepAlive}).Listen(ctx, "tcp", cfg.Address())
	if err != nil {
		return nil, cannotListen(cfg, err)
	}
	db, err := store.Open(ctx, store.Config{
		Driver:   cfg.Database.Driver,
		Source:   cfg.Database.Source,
		MaxQueue: cfg.MaxQueue,
		Logger:   log,

		Notifications: cfg.Notifications,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("DATABASE_URL: %w", err), listener.Close())
	}
	svc := service.New(db, service.Config{
		Limits:     lock.Limits{MaxTTL: cfg.MaxTTL, DefaultTTL: cfg.DefaultTTL, MaxWait: cfg.MaxWait},
		MaxWaiters: cfg.MaxWaiters,
		MaxQueue:   cfg.MaxWaitersPerResource,
		KeepPlace:  cfg.KeepPlace,
		Recheck:    cfg.RecheckInterval,
	}, log)
	a := &App{
		cfg:     cfg,
		store:   db,
		service: svc,
		sweeper: sweep.New(svc, sweep.Config{
			Interval:  cfg.SweepInterval,
			Retention: cfg.IdleRetention,
			History:   cfg.HistoryRetention,
			Logger:    log,
		}),
		server:  api.NewServer(api.New(svc, db.DatabaseID(), db.Ping, log), log),
		address: listener.Addr(),
		failed:  make(chan error, 1),
	}
	if cfg.Database.Driver == store.Postgres && cfg.Notifications {
		a.listen, err = notify.New(notify.Config{
			URL: cfg.Database.Source,
			Channels: map[string]func(string){
				db.Channel(): svc.Wake,
				db.SupersededChannel(): func(connection string) {
					if id, err := strconv.ParseInt(connection, 10, 64); err == nil {
						svc.WakeSuperseded(id)
					}
				},
			},
			WakeAll: svc.WakeAll,
			Logger:  log,
		})
		if err != nil {
			return nil, errors.Join(err, listener.Close(), db.Close())
		}
	}
	a.store.Start(a.service.Committed)
	a.service.Start()
	if a.listen != nil {
		a.listen.Start()
	}
	a.sweeper.Start()
	go func() {
		if err := a.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			a.failed <- err
		}
	}()
	return a, nil
}

// cannotListen returns an error that names the setting at fault and a remedy.
func cannotListen(cfg config.Config, err error) error {
	lookup, isLookup := errors.AsType[*net.DNSError](err)
	switch {
	case isLookup:
		return fmt.Errorf("HOST: %q cannot be found (%s): want a name or an IP address of this machine, or 0.0.0.0 for all",
			cfg.Host, lookup.Err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("HOST: %q is not an address of this machine: want one that is, or 0.0.0.0 for all", cfg.Host)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("PORT: another program listens on %s (%w): end it, or choose another port",
			cfg.Address(), syscall.EADDRINUSE)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("PORT: this user may not listen on %s (%w): choose a port from 1024 up, or grant CAP_NET_BIND_SERVICE",
			cfg.Address(), syscall.EACCES)
	}
	return fmt.Errorf("HOST, PORT: cannot listen on %s: %w", cfg.Address(), err)
}

// Address returns the address that the server listens on.
func (a *App) Address() string { return a.address.String() }

// Failed returns a channel that gets an error if the HTTP server ends before Stop.
func (a *App) Failed() <-chan error { return a.failed }

// Stop ends everything in order. It answers waiting requests with 503, closes the port,
// answers the accepted requests, stops the background loops, executes the queued commands
// and closes the database. It aborts requests that take longer than the shutdown timeout.
func (a *App) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.ShutdownTimeout)
	defer cancel()
	a.service.StopWaiting()
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests were cut off after %v: %w", a.cfg.ShutdownTimeout, err), a.server.Close())
	}
	a.sweeper.Stop()
	if a.listen != nil {
		a.listen.Stop()
	}
	a.service.Stop()
	return errors.Join(err, a.store.Close())
}
