package main

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// relay accepts connections until the test ends, and calls serve for each in a goroutine.
func relay(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var conns sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			conns.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		mu.Lock()
		for _, conn := range open {
			_ = conn.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
	return listener.Addr().String()
}

// forward connects a client with a server. It calls write for what the client sends, and
// returns when write fails or one side disconnects.
func forward(client net.Conn, upstream string, write func(server io.Writer, data []byte) error) {
	server, err := net.Dial("tcp", upstream)
	if err != nil {
		return
	}
	var answers sync.WaitGroup
	answers.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil || write(server, buf[:n]) != nil {
			break
		}
	}
	_ = server.Close()
	answers.Wait()
}

// throughCutter returns the address of a proxy for a server. The proxy cuts each
// connection at the given age. It sends to done when the server has finished with a
// connection.
func throughCutter(t *testing.T, serverURL string, age time.Duration, done chan<- struct{}) string {
	t.Helper()
	return "http://" + relay(t, func(client net.Conn) {
		defer func() { done <- struct{}{} }()
		server, err := net.Dial("tcp", strings.TrimPrefix(serverURL, "http://"))
		if err != nil {
			t.Error(err)
			return
		}
		defer server.Close()
		var answers sync.WaitGroup
		answers.Go(func() {
			_, _ = io.Copy(client, server)
			_, _ = io.Copy(io.Discard, server)
		})
		timer := time.AfterFunc(age, func() { _ = client.Close() })
		_, _ = io.Copy(server, client)
		_ = server.(*net.TCPConn).CloseWrite()
		answers.Wait()
		timer.Stop()
	})
}

// listenerProxy is a proxy between a server and its Postgres. It can cut the connections
// on which the server listens for notifications.
type listenerProxy struct {
	mu        sync.Mutex
	refuses   bool
	refused   int                   // the number of connections that tried to listen
	listening map[net.Conn]struct{} // the connections that listen
}

// throughListenerProxy returns the URL of a database behind a new proxy.
func throughListenerProxy(t *testing.T, databaseURL string) (string, *listenerProxy) {
	t.Helper()
	u, err := url.Parse(databaseURL)
	must(t, err)
	upstream := u.Host
	p := &listenerProxy{listening: map[net.Conn]struct{}{}}
	u.Host = relay(t, func(client net.Conn) {
		forward(client, upstream, func(database io.Writer, data []byte) error {
			if bytes.Contains(data, []byte("LISTEN ")) && !p.mayListen(client) {
				return net.ErrClosed
			}
			_, err := database.Write(data)
			return err
		})
		p.mu.Lock()
		delete(p.listening, client)
		p.mu.Unlock()
	})
	return u.String(), p
}

func (p *listenerProxy) mayListen(client net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuses {
		p.refused++
		return false
	}
	p.listening[client] = struct{}{}
	return true
}

// cut closes the connections that listen, and refuses new ones until allow is called.
func (p *listenerProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses, p.refused = true, 0
	for conn := range p.listening {
		_ = conn.Close()
	}
}

func (p *listenerProxy) allow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = false
}

// counts returns the number of connections that listen, and the number of those refused
// since the last cut.
func (p *listenerProxy) counts() (listening, refused int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.listening), p.refused
}
