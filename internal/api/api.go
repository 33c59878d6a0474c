// Package api is the HTTP API of the lock service. It turns requests into commands of the
// domain, and outcomes and errors into the JSON of package wire. routes.go lists all
// routes, and errors.go states the status and the code of each error.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"resource-lock-manager/internal/service"
)

// API serves requests. New returns its handler.
type API struct {
	locks *service.Service
	ping  func(context.Context) error
	log   *slog.Logger

	database []string      // the value of the header Lock-Database, never written to
	spools   chan struct{} // holds an element for each whole list that is being read or sent
}

// New returns the handler of the whole HTTP API. Every response states the id of the
// database. ping returns an error if the database does not answer.
func New(locks *service.Service, database string, ping func(context.Context) error, log *slog.Logger) http.Handler {
	a := &API{
		locks: locks, ping: ping, log: log, database: []string{database}, spools: make(chan struct{}, maxSpools),
	}
	return a.routes()
}

// writeTimeout is the maximum time to send a response. The time that a request waits in
// the queue does not count. Like the other timeouts it is shorter than a shutdown may
// take, because a shutdown waits for clients that do not read.
const writeTimeout = 20 * time.Second

// extendDeadline sets the time until which the response must be sent, counted from now.
func extendDeadline(w http.ResponseWriter, d time.Duration) error {
	err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d))
	if errors.Is(err, http.ErrNotSupported) { // of a writer that is no connection
		return nil
	}
	return err
}

// NewServer returns a server for the handler, with timeouts for clients that send or read
// slowly.
func NewServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ConnContext:       withConnection,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}
