package robust_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/internal/robust"
)

// slowClients has clients that send headers or bodies a byte at a time and never finish,
// clients that do not read their answers, and clients that wait and do not read.
func slowClients(t *testing.T, r *robust.Run) {
	server := r.Servers(1, sqlite(t))[0]
	before := healthOf(t, server)
	r.Work(robust.Workload{Clients: 4}, server)
	end := newProbe(t, server).inBackground()
	begun := time.Now()
	clients := newSlow(t, server, r.Long())
	for r.Running() {
		clients.trickle()
		r.Pause(20 * time.Millisecond)
	}
	end()
	files := openFiles(t, server)
	fmt.Fprintf(t.Output(), "%d slow clients; %d open files after %v; %v\n",
		len(clients.all), files, time.Since(begun).Round(time.Second), server.Memory(t))
	const bound = 35 * time.Second // the longest time that the server gives a request to arrive
	if time.Since(begun) > bound && files > before.files+len(clients.all)-len(clients.senders)+50 {
		t.Errorf("after %v the server has not disconnected the clients that never finish sending", bound)
	}
	closeAll(clients.all)
	before.wantRecovered(t)
	wantMemoryBelow(t, server, 1000)
	r.Judge()
}

// stopWithSlowClients stops a server that has slow clients. It must stop in order.
func stopWithSlowClients(t *testing.T, r *robust.Run) {
	server := r.Servers(1, sqlite(t))[0]
	before := healthOf(t, server)
	r.Work(robust.Workload{Clients: 4}, server)
	clients := newSlow(t, server, false)
	for r.Running() {
		clients.trickle()
		r.Pause(20 * time.Millisecond)
	}
	r.Fault("restart", 0, func() {
		begun := time.Now()
		server.Signal(t, syscall.SIGTERM)
		server.WantStopped(t)
		fmt.Fprintf(t.Output(), "with %d slow clients the server took %v to stop\n", len(clients.all),
			time.Since(begun).Round(time.Millisecond))
		server.Start(t)
	})
	before.wantRecovered(t)
	r.Judge()
}

// slow are clients that send or read slowly.
type slow struct {
	all     []*caller
	senders []func() // each sends another byte
}

func newSlow(t *testing.T, server *robust.Server, many bool) *slow {
	t.Helper()
	each := 150
	if many {
		each = 250
	}
	filler := dial(t, server, 1)[0]
	for n := range 500 { // so that a list is long
		resource := fmt.Sprint("filler ", n, strings.Repeat("r", 200))
		filler.want(t, acquireText(robust.Operation{Resource: resource, Process: strings.Repeat("p", 255)}))
	}
	filler.want(t, acquireText(robust.Operation{Resource: "wanted", Process: "filler"}))
	s := &slow{all: dial(t, server, 4*each)}
	for i, c := range s.all {
		send := func(text string) { _, _ = io.WriteString(c.conn, text) } // the server may have closed the connection
		switch i % 4 {
		case 0:
			send("GET /livez HTTP/1.1\r\nHost: lockd\r\nX-Long: ")
			s.senders = append(s.senders, func() { send("x") })
		case 1:
			send("POST /locks/request HTTP/1.1\r\nHost: lockd\r\n" +
				"Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{")
			s.senders = append(s.senders, func() { send(" ") })
		case 2:
			_ = c.conn.(*net.TCPConn).SetReadBuffer(1 << 12)
			send(strings.Repeat(getText("/locks/all-locked", nil), 50))
		case 3:
			send(acquireText(robust.Operation{
				Resource: "wanted", Process: fmt.Sprint("waiter ", i),
				Wait: time.Minute,
			}))
		}
	}
	return s
}

// trickle sends one byte of each sender.
func (s *slow) trickle() {
	for _, send := range s.senders {
		send()
	}
}

// idleConnections has connections without requests, also while the server stops.
func idleConnections(t *testing.T, r *robust.Run) {
	const count = 5000
	server := r.Servers(1, sqlite(t))[0]
	before := healthOf(t, server)
	r.Work(robust.Workload{Clients: 4}, server)
	end := newProbe(t, server).inBackground()
	idle := dial(t, server, count)
	for i := range idle {
		if i%2 == 0 { // half of them have been used
			idle[i].want(t, getText("/livez", nil))
		}
	}
	if files := openFiles(t, server); files < count {
		t.Errorf("only %d open files", files)
	}
	for r.Running() {
		r.Pause(50 * time.Millisecond)
	}
	end()
	fmt.Fprintf(t.Output(), "%d idle connections; %v\n", count, server.Memory(t))
	wantMemoryBelow(t, server, 1000)
	closeAll(idle[:count/2])
	begun := time.Now()
	r.Fault("restart", 0, func() {
		server.Stop(t, syscall.SIGTERM)
		fmt.Fprintf(t.Output(), "with %d of them the server took %v to stop\n", count/2,
			time.Since(begun).Round(time.Millisecond))
		server.Start(t)
	})
	closeAll(idle)
	before.wantRecovered(t)
	r.Judge()
}
