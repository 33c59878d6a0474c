// Package locktest provides a lock server in memory for tests of programs that use
// package client. The server has the rules, the queue and the HTTP API of lockd, so its
// answers are those of a real server. It uses connections inside the process: a test
// needs no network, no port and no database.
//
// A test can cause what is rare in production. [Server.Expire] and [Server.ForceRelease]
// end a hold, [Server.SetOffline] interrupts the network, and [Server.DropReply] loses
// one answer. With [Server.Hold] another process holds a lock.
//
// The server uses the real clock. To see a lock expire, call Expire instead of waiting.
package locktest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/client"
	"resource-lock-manager/internal/api"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/memstore"
	"resource-lock-manager/internal/service"
)

// URL is the base URL of every server. Only the HTTP client of a server reaches it.
const URL = "http://locktest.invalid"

// Server is a lock server in memory. Its methods may be called concurrently.
type Server struct {
	tb          testing.TB
	db          *memstore.Database
	store       *memstore.Store
	service     *service.Service
	connections *pipes
	transport   *http.Transport

	mu   sync.Mutex
	drop int // the number of answers to lose
}

// New starts a server that is stopped when the test ends.
func New(tb testing.TB) *Server {
	tb.Helper()
	log := slog.New(slog.DiscardHandler)
	s := &Server{tb: tb, db: memstore.NewDatabase(time.Now), connections: newPipes()}
	s.store = s.db.Open()
	s.service = service.New(s.store, service.Config{
		Limits:     lock.Limits{MaxTTL: lock.LongestTTL, MaxWait: time.Hour},
		MaxWaiters: 10_000, MaxQueue: 10_000, KeepPlace: 10 * time.Second, Recheck: time.Second,
	}, log)
	s.store.Start(s.service.Committed)
	s.service.Start()

	s.transport = &http.Transport{DialContext: s.connections.dial, MaxIdleConnsPerHost: 16}
	server := api.NewServer(api.New(s.service, s.store.DatabaseID(), s.store.Ping, log), log)
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.connections) }()
	tb.Cleanup(func() {
		s.service.StopWaiting()
		s.transport.CloseIdleConnections()
		if err := errors.Join(server.Close(), s.connections.Close()); err != nil {
			tb.Errorf("locktest: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			tb.Errorf("locktest: %v", err)
		}
		s.service.Stop()
		_ = s.store.Close()
	})
	return s
}

// Client returns a client of the server. It replaces o.HTTPClient.
func (s *Server) Client(o client.Options) *client.Client {
	s.tb.Helper()
	o.HTTPClient = s.HTTPClient()
	c, err := client.New(URL, o)
	if err != nil {
		s.tb.Fatalf("locktest: %v", err)
	}
	return c
}

// HTTPClient returns a client that sends every request to the server.
func (s *Server) HTTPClient() *http.Client { return &http.Client{Transport: network{s}} }

// Hold acquires a lock without a TTL for the given owner and returns the fencing token.
// It fails the test if the lock is not free.
func (s *Server) Hold(name, owner string) int64 {
	s.tb.Helper()
	granted, err := s.service.Acquire(context.Background(), lock.Request{Resource: name, ProcessID: owner})
	if err != nil {
		s.tb.Fatalf("locktest: hold %q for %q: %v", name, owner, err)
	}
	return granted.Hold.Token
}

// Release releases a lock for its owner. It fails the test if the owner does not hold the
// lock.
func (s *Server) Release(name, owner string) {
	s.tb.Helper()
	if _, err := s.service.Release(context.Background(), lock.Release{Resource: name, ProcessID: owner}); err != nil {
		s.tb.Fatalf("locktest: release %q of %q: %v", name, owner, err)
	}
}

// ForceRelease force-releases a lock, as an operator would. It fails the test if the lock
// is not held.
func (s *Server) ForceRelease(name, reason string) {
	s.tb.Helper()
	c := lock.ForceRelease{Resource: name, Reason: reason, By: "locktest"}
	if _, err := s.service.ForceRelease(context.Background(), c); err != nil {
		s.tb.Fatalf("locktest: force-release %q: %v", name, err)
	}
}

// Expire ends a hold as if its TTL had passed. It fails the test if the lock is not held.
func (s *Server) Expire(name string) {
	s.tb.Helper()
	held := false
	s.store.Edit(name, func(r *lock.Resource) {
		now := s.db.Now()
		if hold, live := r.Holder(now); live {
			held = true
			hold.ExpiresAt, hold.MinHoldUntil = now, time.Time{}
			r.Holds = []lock.Hold{hold}
		}
	})
	if !held {
		s.tb.Fatalf("locktest: expire %q: the lock is not held", name)
	}
	if _, err := s.store.Execute(context.Background(), lock.ExpireAndGrant{Names: []string{name}}); err != nil {
		s.tb.Fatalf("locktest: expire %q: %v", name, err)
	}
}

// Holder returns the owner of a lock and reports whether the lock is held.
func (s *Server) Holder(name string) (owner string, held bool) {
	hold, held := s.db.Resource(name).Holder(s.db.Now())
	return hold.ProcessID, held
}

// Waiters returns the number of requests that wait for a lock.
func (s *Server) Waiters(name string) int { return s.db.Resource(name).Waiters }

// SetOffline sets whether the network is interrupted. While it is, every request fails as
// if no server listened. Requests in progress lose their connections.
func (s *Server) SetOffline(offline bool) { s.connections.setOffline(offline) }

// DropReply loses the answer to the next request. The server executes the request, and
// the connection of the client ends without an answer.
func (s *Server) DropReply() {
	s.mu.Lock()
	s.drop++
	s.mu.Unlock()
}

// network is the transport of a server's clients.
type network struct{ *Server }

// RoundTrip implements http.RoundTripper.
func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	drop := n.drop > 0 && !n.connections.isOffline()
	if drop {
		n.drop--
	}
	n.mu.Unlock()
	response, err := n.transport.RoundTrip(r)
	if err == nil && drop {
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		return nil, io.ErrUnexpectedEOF
	}
	return response, err
}

// CloseIdleConnections is called by http.Client.
func (n network) CloseIdleConnections() { n.transport.CloseIdleConnections() }

// pipes is a net.Listener whose connections are pipes inside the process.
type pipes struct {
	accepted  chan net.Conn
	closed    chan struct{}
	closeOnce sync.Once

	mu      sync.Mutex
	offline bool
	dialed  []net.Conn // since it was offline last
}

func newPipes() *pipes { return &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) isOffline() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.offline
}

// setOffline sets whether dials are refused. If so, it closes every connection.
func (p *pipes) setOffline(offline bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.offline = offline
	if offline {
		for _, c := range p.dialed {
			_ = c.Close()
		}
		p.dialed = nil
	}
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	server, dialed := net.Pipe()
	p.mu.Lock()
	offline := p.offline
	if !offline {
		p.dialed = append(p.dialed, dialed)
	}
	p.mu.Unlock()
	if offline {
		return nil, &net.OpError{Op: "dial", Net: "locktest", Err: syscall.ECONNREFUSED}
	}
	select {
	case p.accepted <- server:
		return dialed, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error {
	p.closeOnce.Do(func() { close(p.closed) })
	return nil
}

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "locktest" }
func (address) String() string  { return "locktest" }
