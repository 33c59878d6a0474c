// Package locktest provides a lock server in memory for tests of programs that use package
// client. It gives the answers of a real server, because it is one: the same rules, the same
// queue and the same HTTP API, over connections inside the process. No test needs a network, a
// port or a database.
//
// What is rare in production is a function call in a test: [Server.Expire] and
// [Server.ForceRelease] end a hold, [Server.SetOffline] cuts the network, and [Server.DropReply]
// loses one answer. With [Server.Hold] another process holds a lock.
//
// The server uses the real clock. Expire a lock instead of waiting for its TTL.
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
	tb        testing.TB
	db        *memstore.Database
	store     *memstore.Store
	service   *service.Service
	transport *http.Transport

	mu      sync.Mutex
	offline bool
	drop    int // how many answers are to be lost
}

// New starts a server that is stopped when the test ends.
func New(tb testing.TB) *Server {
	tb.Helper()
	log := slog.New(slog.DiscardHandler)
	s := &Server{tb: tb, db: memstore.NewDatabase(time.Now)}
	s.store = s.db.Open()
	s.service = service.New(s.store, service.Config{
		Limits:     lock.Limits{MaxTTL: lock.LongestTTL, MaxWait: time.Hour},
		MaxWaiters: 10_000, MaxQueue: 10_000, KeepPlace: 10 * time.Second, Recheck: time.Second,
	}, log)
	s.store.Start(s.service.Committed)
	s.service.Start()

	connections := newPipes()
	s.transport = &http.Transport{DialContext: connections.dial, MaxIdleConnsPerHost: 16}
	server := api.NewServer(api.New(s.service, s.store.DatabaseID(), s.store.Ping, log), log)
	served := make(chan error, 1)
	go func() { served <- server.Serve(connections) }()
	tb.Cleanup(func() {
		s.service.StopWaiting()
		s.transport.CloseIdleConnections()
		if err := errors.Join(server.Close(), connections.Close()); err != nil {
			tb.Errorf("locktest: %v", err)
		}
		<-served
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

// Hold acquires a lock without a TTL for another process and returns its fencing token. It fails
// the test if the lock is not free.
func (s *Server) Hold(name, owner string) int64 {
	s.tb.Helper()
	granted, err := s.service.Acquire(context.Background(), lock.Request{Resource: name, ProcessID: owner})
	if err != nil {
		s.tb.Fatalf("locktest: hold %q for %q: %v", name, owner, err)
	}
	return granted.Hold.Token
}

// Release ends the lock of a process, usually one of Hold. It fails the test if the process does
// not hold the lock.
func (s *Server) Release(name, owner string) {
	s.tb.Helper()
	if _, err := s.service.Release(context.Background(), lock.Release{Resource: name, ProcessID: owner}); err != nil {
		s.tb.Fatalf("locktest: release %q of %q: %v", name, owner, err)
	}
}

// ForceRelease ends the lock as an operator would, with a reason. It fails the test if the lock
// is not held.
func (s *Server) ForceRelease(name, reason string) {
	s.tb.Helper()
	c := lock.ForceRelease{Resource: name, Reason: reason, By: "locktest"}
	if _, err := s.service.ForceRelease(context.Background(), c); err != nil {
		s.tb.Fatalf("locktest: force-release %q: %v", name, err)
	}
}

// Expire ends the lock as if its TTL had passed. It fails the test if the lock is not held.
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

// Holder returns the process that holds the lock, and reports whether one does.
func (s *Server) Holder(name string) (owner string, held bool) {
	hold, held := s.db.Resource(name).Holder(s.db.Now())
	return hold.ProcessID, held
}

// Waiters returns the number of requests that wait for the lock.
func (s *Server) Waiters(name string) int { return s.db.Resource(name).Waiters }

// SetOffline makes every request fail as if no server listened, or ends that. Requests that wait
// when it is set are cut off.
func (s *Server) SetOffline(offline bool) {
	s.mu.Lock()
	s.offline = offline
	s.mu.Unlock()
	if offline {
		s.transport.CloseIdleConnections()
	}
}

// DropReply loses the answer to the next request: the server executes the request, and the client
// sees a broken connection.
func (s *Server) DropReply() {
	s.mu.Lock()
	s.drop++
	s.mu.Unlock()
}

// network is the transport of a server's clients.
type network struct{ *Server }

// RoundTrip implements http.RoundTripper.
func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	refused := &net.OpError{Op: "dial", Net: "locktest", Err: syscall.ECONNREFUSED}
	n.mu.Lock()
	offline, drop := n.offline, n.drop > 0
	if drop && !offline {
		n.drop--
	}
	n.mu.Unlock()
	if offline {
		return nil, refused
	}
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
}

func newPipes() *pipes { return &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	server, dialed := net.Pipe()
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
