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

// proxy is between a store and its Postgres. It cuts one connection when the client sends
// a given text.
type proxy struct {
	address  string
	upstream string
	cutAfter atomic.Value // a string: a connection that writes locks is cut when the client sends it; empty: never
	deliver  atomic.Bool  // what the client sent last reaches the database; otherwise a COMMIT becomes a ROLLBACK
	answer   atomic.Value // a []byte: the answer that the client gets instead of a cut; empty: none
	atOnce   atomic.Bool  // the cut does not wait for the answer of the database
	cuts     atomic.Int32
	answers  atomic.Int32 // ReadyForQuery of the database: each ends a round trip
}

// throughProxy changes cfg so that the store connects through a new proxy.
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

// connection is a connection through the proxy.
type connection struct {
	*proxy
	client, server net.Conn
	cut            atomic.Bool // the next answer of the database is dropped or replaced
	writes         bool        // it has locked rows; other connections only read or renew the lease
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
		if word := c.cutAfter.Load().(string); word != "" && (c.writes || word == "begin") &&
			bytes.Contains(buf[:n], []byte(word)) {
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
		if c.cut.Swap(false) { // the answer of the database shows that it has executed the text
			if answer = c.answer.Load().([]byte); len(answer) == 0 {
				return
			}
		}
		if _, err := c.client.Write(answer); err != nil {
			return
		}
	}
}
