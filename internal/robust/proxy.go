package robust

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Proxy forwards TCP connections to another address and simulates a bad network. Its own
// address never changes.
type Proxy struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu         sync.Mutex
	changed    *sync.Cond
	upstream   string
	conditions NetworkConditions
	closed     bool
	pairs      map[*pair]struct{}
}

// NetworkConditions is how a proxy treats what it forwards. The zero value is a good
// network.
type NetworkConditions struct {
	Refuse      bool          // new connections end at once
	BlackHole   bool          // nothing is forwarded until the black hole ends, and no connection ends
	Delay       time.Duration // everything arrives later by this time, in each direction
	LoseAnswers bool          // requests are forwarded; the first byte of an answer ends the connection
	Only        string        // if set, only for connections whose latest request contains this text
}

// of returns the conditions for one of the connections.
func (w NetworkConditions) of(c *pair) NetworkConditions {
	if strings.Contains(c.lastRequest, w.Only) {
		return w
	}
	return NetworkConditions{}
}

// pair is a client's connection and the one to the upstream server.
type pair struct {
	client, server net.Conn
	lastRequest    string // the latest piece of a request; guarded by the proxy's mutex
}

func (p *pair) close() {
	_ = p.client.Close()
	_ = p.server.Close()
}

// NewProxy starts a proxy that ends with the test.
func NewProxy(tb testing.TB, upstream string) *Proxy {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{listener: listener, upstream: upstream, pairs: map[*pair]struct{}{}}
	p.changed = sync.NewCond(&p.mu)
	p.serving.Go(p.accept)
	tb.Cleanup(func() {
		_ = listener.Close()
		p.mu.Lock()
		p.closed = true
		p.changed.Broadcast()
		p.mu.Unlock()
		p.Cut()
		p.serving.Wait()
	})
	return p
}

// Address returns the address that the proxy listens on.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Upstream returns the address that new connections are forwarded to.
func (p *Proxy) Upstream() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.upstream
}

// SetUpstream sets the address that new connections are forwarded to. With an empty
// address they end at once.
func (p *Proxy) SetUpstream(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upstream = address
}

// SetConditions sets the conditions of all connections.
func (p *Proxy) SetConditions(w NetworkConditions) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conditions = w
	p.changed.Broadcast()
}

// Cut ends every connection.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		c.close()
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.serving.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	conditions, upstream := p.awaitPassable(&pair{})
	if conditions.Refuse {
		_ = client.Close()
		return
	}
	server, err := net.DialTimeout("tcp", upstream, 5*time.Second)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &pair{client: client, server: server}
	p.mu.Lock()
	p.pairs[c] = struct{}{}
	if p.closed {
		c.close()
	}
	p.mu.Unlock()
	var answers sync.WaitGroup
	answers.Go(func() { p.pass(c, server, client, true) })
	p.pass(c, client, server, false)
	answers.Wait()
	c.close()
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
}

// awaitPassable waits while a black hole swallows the connection. It returns the current
// conditions and the upstream address.
func (p *Proxy) awaitPassable(c *pair) (NetworkConditions, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.conditions.of(c).BlackHole && !p.closed {
		p.changed.Wait()
	}
	return p.conditions.of(c), p.upstream
}

// pass forwards one direction until it ends, each piece after the current delay. It
// forwards the end too.
func (p *Proxy) pass(c *pair, from, to net.Conn, isAnswer bool) {
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 1024)
	failed := false // the connection ended with an error
	var writer sync.WaitGroup
	writer.Go(func() {
		for next := range pieces {
			if wait := time.Until(next.due); wait > 0 {
				<-time.After(wait)
			}
			if conditions, _ := p.awaitPassable(c); isAnswer && conditions.LoseAnswers {
				c.close()
				continue
			}
			if _, err := to.Write(next.data); err != nil {
				c.close()
			}
		}
		p.awaitPassable(c)
		if failed { // closing a connection again does no harm
			c.close()
		} else if half, ok := to.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
	})
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			p.mu.Lock()
			if !isAnswer {
				c.lastRequest = string(buffer[:n])
			}
			delay := p.conditions.of(c).Delay
			p.mu.Unlock()
			pieces <- piece{time.Now().Add(delay), append([]byte(nil), buffer[:n]...)}
		}
		if err != nil {
			failed = err != io.EOF //nolint:errorlint // Read returns it as it is
			break
		}
	}
	close(pieces)
	writer.Wait()
}
