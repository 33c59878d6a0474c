// Package api is the HTTP face of the lock service: it turns requests into commands of the domain, and outcomes and
// errors into the JSON of package wire. The whole surface stands in routes.go, and which error answers with which status
// in errors.go.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"resource-lock-manager/internal/lock"
)

// maxBody is the most bytes of a request's body.
const maxBody = 64 << 10

// API answers requests. Make its handler with New.
type API struct {
	locks *lock.Service
	ping  func(context.Context) error
	log   *slog.Logger

	database []string // the value of the header Lock-Database, never written to

	spools chan struct{} // a place for each whole list that may be read or sent
}

// New returns the handler of the whole HTTP API. Every answer names the database by its id. ping returns an error when
// the database does not answer.
func New(locks *lock.Service, database string, ping func(context.Context) error, log *slog.Logger) http.Handler {
	a := &API{
		locks: locks, ping: ping, log: log, database: []string{database}, spools: make(chan struct{}, maxSpools),
	}
	return a.routes()
}

// writeTimeout is how long an answer may take, apart from the time that a request waits for its turn. Like the other bounds it
// is less than a shutdown may take, which has to wait for whoever does not read.
const writeTimeout = 20 * time.Second

// NewServer returns a server for the handler with bounds against clients that send or read slowly.
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
