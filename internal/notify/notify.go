// Package notify listens for what the database tells this server: on a Postgres notification channel, over a connection of
// its own.
//
// A notification is a hint. It may be lost whenever the connection is; after every new one everything is woken, and
// whoever is woken looks for itself. Where the database cannot notify (an engine without LISTEN) nothing arrives, and
// nothing else happens. Through a pooler it does not listen: the connection that would listen may be another program's next.
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
)

const (
	silence      = 10 * time.Second // after so long without a word the connection is tried
	patience     = 5 * time.Second  // bounds that trial, and connecting to one host
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 10 * time.Second
)

var errPooler = errors.New("the database is reached through a pooler such as PgBouncer, which cannot pass notifications on: " +
	"set NOTIFICATIONS=false")

// Config says where to listen and whom to wake.
type Config struct {
	URL      string                          // of the Postgres database
	Channels map[string]func(payload string) // what is called for each notification, by channel
	WakeAll  func()                          // is called when notifications may have been lost
	Logger   *slog.Logger
}

// Listener is the loop. Make one with New; it runs between Start and Stop.
type Listener struct {
	cfg    Config
	conn   *pgx.ConnConfig
	cancel context.CancelFunc
	done   chan struct{}
}

// New returns a listener that does nothing before Start. Its error says what is wrong with the URL.
func New(cfg Config) (*Listener, error) {
	conn, err := pgx.ParseConfig(cfg.URL)
	if err != nil {
		return nil, err
	}
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "lockd listener"
	}
	conn.RuntimeParams["client_encoding"] = "UTF8" // whatever the role's default is
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = patience
	}
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silence, Interval: patience, Count: 2}}
	conn.DialFunc = dialer.DialContext
	return &Listener{cfg: cfg, conn: conn, done: make(chan struct{})}, nil
}

// Start begins to listen. It is called once.
func (l *Listener) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go l.loop(ctx)
}

// Stop closes the connection. It is called once, after Start.
func (l *Listener) Stop() {
	l.cancel()
	<-l.done
}

func (l *Listener) loop(ctx context.Context) {
	defer close(l.done)
	backoff, failing := firstBackoff, false
	for ctx.Err() == nil {
		err := l.listen(ctx, func() {
			if failing {
				l.cfg.Logger.Info("notifications from the database arrive again")
			}
			backoff, failing = firstBackoff, false
		})
		if ctx.Err() != nil {
			return
		}
		if !failing {
			l.cfg.Logger.Warn("no notifications from the database; waiting requests go on by rechecking", "error", err)
			failing = true
		}
		timer := time.NewTimer(backoff/2 + rand.N(backoff/2))
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// listen passes notifications on until the connection breaks. It calls begun when it listens.
func (l *Listener) listen(ctx context.Context, begun func()) error {
	conn, err := pgx.ConnectConfig(ctx, l.conn)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(closing) // it may be broken
	}()
	subscribing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// A pooler has ids of its own: it does not say which of its connections it will use.
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
	begun()
	l.cfg.WakeAll()
	for {
		quiet, cancel := context.WithTimeout(ctx, silence)
		notification, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			l.cfg.Channels[notification.Channel](notification.Payload)
		case ctx.Err() != nil:
			return ctx.Err()
		case pgconn.Timeout(err) && !conn.IsClosed():
			trial, cancel := context.WithTimeout(ctx, patience)
			err = conn.Ping(trial)
			cancel()
			if err != nil {
				return fmt.Errorf("the connection is dead: %w", err)
			}
		default:
			return err
		}
	}
}
