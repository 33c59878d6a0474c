package robust

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Proxy hands TCP connections on to another address, and does to them what networks do. Its address stays while what is
// behind it comes and goes.
type Proxy struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu       sync.Mutex
	changed  *sync.Cond
	upstream string
	weather  Weather
	closed   bool
	pairs    map[*pair]struct{}
}

// Weather is how a proxy treats what passes through it. The zero weather is fair.
type Weather struct {
	Refuse      bool          // new connections end at once
	BlackHole   bool          // nothing passes, and nobody is told; what was sent meanwhile arrives when it is over
	Delay       time.Duration // everything arrives so much later, each way
	LoseAnswers bool          // requests pass; the first byte of an answer ends the connection
	Only        string        // if not empty, connections whose latest request does not have this text in it are treated fairly
}

// on is the weather for one of the connections.
func (w Weather) on(c *pair) Weather {
	if strings.Contains(c.asked, w.Only) {
		return w
	}
	return Weather{}
}

// pair is a client's connection and its counterpart.
type pair struct {
	client, server net.Conn
	asked          string // the latest piece of a request; guarded by the proxy's mutex
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

// Address that the proxy listens on.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Upstream is where new connections are handed on to.
func (p *Proxy) Upstream() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.upstream
}

// SetUpstream is for connections to come. Without an address they end at once.
func (p *Proxy) SetUpstream(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upstream = address
}

// SetWeather is for all connections.
func (p *Proxy) SetWeather(w Weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather = w
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
	weather, upstream := p.passable(&pair{})
	if weather.Refuse {
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

// passable waits until something can pass.
func (p *Proxy) passable(c *pair) (Weather, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.weather.on(c).BlackHole && !p.closed {
		p.changed.Wait()
	}
	return p.weather.on(c), p.upstream
}

// pass copies one direction until it ends, in order and each piece as late as the weather says. The end passes too.
func (p *Proxy) pass(c *pair, from, to net.Conn, isAnswer bool) {
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 1024)
	failed := false // whether it ends by an error, once there are no more pieces
	var writer sync.WaitGroup
	writer.Go(func() {
		for next := range pieces {
			if wait := time.Until(next.due); wait > 0 {
				<-time.After(wait)
			}
			if weather, _ := p.passable(c); isAnswer && weather.LoseAnswers {
				c.close()
				continue
			}
			if _, err := to.Write(next.data); err != nil {
				c.close()
			}
		}
		p.passable(c)
		if failed { // of a connection that was cut, closing it again does no harm
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
				c.asked = string(buffer[:n])
			}
			delay := p.weather.on(c).Delay
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
