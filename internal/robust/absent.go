package robust

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Stalled is a fault during which the database can be read and nothing can be committed.
const Stalled FaultKind = "database locked"

// Absent starts clients that do not behave as a server expects, in turn on the servers.
// Some have finished sending before they are answered. Some disconnect before the answer.
// Some stay connected and read nothing. It is called after Work.
func (r *Run) Absent(w Workload, clients int, servers ...*Server) {
	w = w.withDefaults()
	for i := range clients {
		a := absentee{worker: r.worker(w, i%len(servers))}
		for n := range servers {
			server := (i + n) % len(servers)
			a.clients = append(a.clients, r.DirectClient(server, servers[server]))
		}
		r.work.Go(a.work)
	}
}

// DirectClient returns a client that does not use the server's proxy. The proxy may not
// forward a reset of a connection.
func (r *Run) DirectClient(number int, server *Server) *Client {
	c := r.Client(number, "http://"+server.Front.Upstream())
	c.direct = true
	return c
}

// absentee is a client that may not read its answers.
type absentee struct {
	*worker
	clients []*Client // one for each server, that of its own server first
}

func (a absentee) work() {
	for a.working.Err() == nil {
		resource := resourceName(a.rand.IntN(a.Resources))
		switch a.rand.IntN(4) {
		case 0:
			a.halfClose(resource)
		case 1:
			a.freeze()
		default:
			a.abandon(resource)
		}
		a.pause(a.upTo(a.Think))
	}
}

// request returns a request of a new process, which does not wait. The answer may be sent
// at the very time at which the client disconnects. So the hold has a TTL, which is
// longer than the time that G7 allows.
func (a absentee) request(resource string) Operation {
	a.attempts++
	process := fmt.Sprintf("absent process %d.%d", a.id, a.attempts)
	return Operation{Resource: resource, Process: process, TTL: abandonedTTL}
}

// halfClose requests a lock, closes its half of the connection, and reads the answer.
func (a absentee) halfClose(resource string) {
	request := a.request(resource)
	request.HalfClosed = true
	got := a.within(a.AnswerTimeout, func(ctx context.Context) Operation { return a.clients[0].Acquire(ctx, request) })
	if got.Outcome != Refused {
		a.ensureReleased(Hold{Process: request.Process, Token: got.Holder.Token}, resource)
	}
}

// abandon requests a lock and disconnects soon.
func (a absentee) abandon(resource string) {
	request := a.request(resource)
	got := a.within(a.upTo(150*time.Millisecond),
		func(ctx context.Context) Operation { return a.clients[0].Acquire(ctx, request) })
	if got.Outcome == Done {
		a.ensureReleased(got.Holder, resource)
	}
}

// freeze waits for a lock and reads nothing. The same request on another connection,
// perhaps to another server, is granted the lock and releases it. After that the first
// request must not be granted it.
func (a absentee) freeze() {
	request := a.request("")
	request.Resource = "of " + request.Process
	request.RequestID, request.Wait = request.Process, LongestWait
	holder := Operation{Resource: request.Resource, Process: "holder of " + request.Resource}
	held := a.within(a.AnswerTimeout, func(ctx context.Context) Operation { return a.Acquire(ctx, holder) })
	if held.Outcome != Done {
		a.ensureReleased(Hold{Process: holder.Process}, request.Resource)
		return
	}
	thaw, err := a.clients[0].AcquireFrozen(request)
	if err != nil {
		a.ensureReleased(held.Holder, request.Resource)
		return
	}
	defer thaw()
	queued := func(n int) bool {
		o := a.within(a.AnswerTimeout, func(ctx context.Context) Operation { return a.Queue(ctx, request.Resource) })
		return len(o.Queue) == n
	}
	for !queued(1) && a.working.Err() == nil {
		a.pause(time.Millisecond)
	}
	repeated, other := make(chan Operation), a.clients[a.rand.IntN(len(a.clients))]
	go func() {
		repeated <- a.within(request.Wait+a.AnswerTimeout,
			func(ctx context.Context) Operation { return other.Acquire(ctx, request) })
	}()
	a.pause(a.upTo(100 * time.Millisecond))
	a.ensureReleased(held.Holder, request.Resource)
	if got := <-repeated; got.Outcome == Done {
		a.ensureReleased(got.Holder, request.Resource)
		a.pause(a.upTo(2 * time.Second))
		a.within(a.AnswerTimeout, func(ctx context.Context) Operation { return a.Status(ctx, request.Resource) })
	}
}

// open connects and sends a request.
func (c *Client) open(request *http.Request) (net.Conn, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.url, "http://"))
	if err != nil {
		return nil, err
	}
	return conn, errors.Join(request.Write(conn), conn.(*net.TCPConn).SetReadBuffer(1<<10))
}

// halfClosed sends a request, closes the sending half of the connection, and returns the
// answer.
func (c *Client) halfClosed(request *http.Request) (*http.Response, error) {
	conn, err := c.open(request)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(request.Context(), func() { _ = conn.Close() })()
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	response.Body = body{response.Body, conn}
	return response, nil
}

// body is the body of an answer. Closing it closes the connection.
type body struct {
	io.Reader
	io.Closer
}

// AcquireFrozen sends an acquire and does not read the answer. The returned function
// disconnects and records the operation.
func (c *Client) AcquireFrozen(o Operation) (thaw func(), err error) {
	request, err := newRequest(context.Background(), http.MethodPost, c.url+"/locks/request", acquireBody(o))
	if err != nil {
		return nil, err
	}
	o.Kind, o.Client, o.Server, o.Direct, o.Outcome, o.Frozen = Acquire, c.id, c.server, c.direct, Unknown, true
	o.Called = c.history.Elapsed()
	conn, err := c.open(request)
	if err != nil {
		return nil, err
	}
	return func() {
		_ = conn.Close()
		o.Returned = c.history.Elapsed()
		c.history.Add(o)
	}, nil
}
