package store_test

import (
	"bytes"
	"context"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"resource-lock-manager/internal/store"
)

// proxy stands between a store and its Postgres and cuts the connection once, where the test says.
type proxy struct {
	address  string
	upstream string
	cutAfter atomic.Value // a string: a connection that writes locks is cut once the client has sent it; empty: never
	deliver  atomic.Bool  // whether what the client sent last still reaches the database; a COMMIT becomes a ROLLBACK if not
	answer   atomic.Value // a []byte that the client gets for it instead of a cut; empty: none
	atOnce   atomic.Bool  // whether the cut does not wait for the answer of the database
	cuts     atomic.Int32
	answers  atomic.Int32 // ReadyForQuery of the database: each ends a round trip
}

// throughProxy makes cfg go through a new proxy.
func throughProxy(t *testing.T, cfg *store.Config) *proxy {
	t.Helper()
	u, err := url.Parse(cfg.Source)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String(), upstream: u.Host}
	p.cutAfter.Store("")
	p.answer.Store([]byte(nil))
	u.Host = p.address
	cfg.Source = u.String()

	var pipes sync.WaitGroup
	pipes.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.upstream)
			if err != nil {
				client.Close()
				continue
			}
			c := &connection{proxy: p, client: client, server: server}
			pipes.Go(c.toDatabase)
			pipes.Go(c.toClient)
		}
	})
	t.Cleanup(func() {
		listener.Close()
		pipes.Wait()
	})
	return p
}

// connection is one client's way through the proxy.
type connection struct {
	*proxy
	client, server net.Conn
	cut            atomic.Bool // no answer of the database comes through any more, or none but one
	writes         bool        // it has locked rows: the others only read, or tell that the server is alive
}

func (c *connection) close() {
	c.client.Close()
	c.server.Close()
}

func (c *connection) toDatabase() {
	defer c.close()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.client.Read(buf)
		if err != nil {
			return
		}
		c.writes = c.writes || bytes.Contains(buf[:n], []byte("FOR UPDATE"))
		if word := c.cutAfter.Load().(string); word != "" && (c.writes || word == "begin") && bytes.Contains(buf[:n], []byte(word)) {
			c.cutAfter.Store("")
			c.cuts.Add(1)
			answered := len(c.answer.Load().([]byte)) > 0
			if !c.deliver.Load() {
				if !answered {
					return
				}
				n = copy(buf, "Q\x00\x00\x00\x0drollback\x00")
			}
			c.cut.Store(true)
		}
		if _, err := c.server.Write(buf[:n]); err != nil || c.cut.Load() && c.atOnce.Load() {
			return
		}
	}
}

func (c *connection) toClient() {
	defer c.close()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.server.Read(buf)
		if err != nil {
			return
		}
		c.answers.Add(int32(bytes.Count(buf[:n], []byte("Z\x00\x00\x00\x05"))))
		answer := buf[:n]
		if c.cut.Swap(false) { // the database has answered: it has done it
			if answer = c.answer.Load().([]byte); len(answer) == 0 {
				return
			}
		}
		if _, err := c.client.Write(answer); err != nil {
			return
		}
	}
}
