// Package notify listens for Postgres notifications, over a connection of its own.
//
// A notification is a hint that may be lost while the connection is broken. After every
// new connection the listener therefore calls WakeAll, and its callee reads the database.
// If the database does not support LISTEN, the listener logs a warning and delivers
// nothing. It does not listen through a connection pooler: the pooler may give the
// listening connection to another program.
package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"resource-lock-manager/internal/lifecycle"
)

const (
	idleTimeout  = 10 * time.Second // after this time without a notification the connection is probed
	probeTimeout = 5 * time.Second  // limits the probe, and connecting to one host
	minBackoff   = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

var errPooler = errors.New("the database is reached through a pooler such as PgBouncer, " +
	"which cannot pass notifications on: set NOTIFICATIONS=false")

// Config is the configuration of a Listener.
type Config struct {
	URL      string                          // of the Postgres database
	Channels map[string]func(payload string) // called for each notification, by channel
	WakeAll  func()                          // called when notifications may have been lost
	Logger   *slog.Logger
}

// Listener is the loop that receives notifications. It runs between Start and Stop.
type Listener struct {
	cfg  Config
	conn *pgx.ConnConfig
	loop lifecycle.Loops
}

// New returns a listener that does nothing before Start. It returns an error if the URL
// is invalid.
func New(cfg Config) (*Listener, error) {
	conn, err := pgx.ParseConfig(cfg.URL)
	if err != nil {
		return nil, err
	}
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "lockd listener"
	}
	conn.RuntimeParams["client_encoding"] = "UTF8" // overrides the default of the role
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = probeTimeout
	}
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: idleTimeout, Interval: probeTimeout, Count: 2,
	}}
	conn.DialFunc = dialer.DialContext
	return &Listener{cfg: cfg, conn: conn}, nil
}

// Start starts to listen. It must be called at most once.
func (l *Listener) Start() { l.loop.Start(l.run) }

// Stop closes the connection and ends the loop. It may be called any number of times,
// also without Start.
func (l *Listener) Stop() { l.loop.Stop() }

func (l *Listener) run(ctx context.Context) {
	backoff, failing := minBackoff, false
	for ctx.Err() == nil {
		err := l.listen(ctx, func() {
			if failing {
				l.cfg.Logger.Info("notifications from the database arrive again")
			}
			backoff, failing = minBackoff, false
		})
		if ctx.Err() != nil {
			return
		}
		if !failing {
			l.cfg.Logger.Warn("no notifications from the database; waiting requests rely on rechecks", "error", err)
			failing = true
		}
		if lifecycle.Sleep(ctx, backoff/2+rand.N(backoff/2)) != nil {
			return
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// listen passes notifications on until the connection breaks. It calls listening once it
// is subscribed to all channels.
func (l *Listener) listen(ctx context.Context, listening func()) error {
	conn, err := pgx.ConnectConfig(ctx, l.conn)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(closing) // fails if the connection is broken
	}()
	subscribing, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	// A pooler reports a process ID of its own, not that of the server process.
	var process uint32
	err = conn.QueryRow(subscribing, "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&process)
	switch {
	case err != nil:
		return err
	case process != conn.PgConn().PID():
		return errPooler
	}
	for channel := range l.cfg.Channels {
		if _, err := conn.Exec(subscribing, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
			return err
		}
	}
	listening()
	l.cfg.WakeAll()
	for {
		idle, cancel := context.WithTimeout(ctx, idleTimeout)
		notification, err := conn.WaitForNotification(idle)
		cancel()
		switch {
		case err == nil:
			l.cfg.Channels[notification.Channel](notification.Payload)
		case ctx.Err() != nil:
			return ctx.Err()
		case pgconn.Timeout(err) && !conn.IsClosed():
			probe, cancel := context.WithTimeout(ctx, probeTimeout)
			err = conn.Ping(probe)
			cancel()
			if err != nil {
				return fmt.Errorf("the connection is dead: %w", err)
			}
		default:
			return err
		}
	}
}
