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

// Stalled is a time during which the database can be read and nothing can be committed.
const Stalled FaultKind = "database locked"

// Absent has clients begin, in turn on the servers, that are not there for their answers: some have finished sending when
// they are answered, some give up and close the connection, some stay connected and read nothing. It follows Work.
func (r *Run) Absent(w Workload, clients int, servers ...*Server) {
	w = w.withDefaults()
	for i := range clients {
		a := absentee{worker: r.worker(w, i%len(servers))}
		for n := range servers {
			server := (i + n) % len(servers)
			a.at = append(a.at, r.DirectClient(server, servers[server]))
		}
		r.work.Go(a.work)
	}
}

// DirectClient is Client without the server's proxy, which does not pass on that a connection was reset.
func (r *Run) DirectClient(number int, server *Server) *Client {
	c := r.Client(number, "http://"+server.Front.Upstream())
	c.direct = true
	return c
}

// absentee is a client that is not there.
type absentee struct {
	*worker
	at []*Client // its own server, and the others
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
			a.giveUp(resource)
		}
		a.pause(a.upTo(a.Think))
	}
}

// request is one of a process that has never been heard of. It does not wait. An answer may be out at the very moment at which
// its client gives up, so its hold ends by itself, but later than G7 allows.
func (a absentee) request(resource string) Operation {
	a.attempts++
	return Operation{Resource: resource, Process: fmt.Sprintf("absent process %d.%d", a.id, a.attempts), TTL: ghostTTL}
}

// halfClose asks for a lock, says that nothing more will come, and reads the answer.
func (a absentee) halfClose(resource string) {
	request := a.request(resource)
	request.HalfClosed = true
	got := a.within(a.Patience, func(ctx context.Context) Operation { return a.at[0].Acquire(ctx, request) })
	if got.Outcome != Refused {
		a.giveBack(Hold{Process: request.Process, Token: got.Holder.Token}, resource)
	}
}

// giveUp asks for a lock and closes the connection soon.
func (a absentee) giveUp(resource string) {
	request := a.request(resource)
	got := a.within(a.upTo(150*time.Millisecond), func(ctx context.Context) Operation { return a.at[0].Acquire(ctx, request) })
	if got.Outcome == Done {
		a.giveBack(got.Holder, resource)
	}
}

// freeze waits for a lock and reads nothing. The same request on another connection, perhaps to another server, is granted
// the lock and gives it back; then the first one must not get it.
func (a absentee) freeze() {
	request := a.request("")
	request.Resource = "of " + request.Process
	request.RequestID, request.Wait = request.Process, LongestWait
	holder := Operation{Resource: request.Resource, Process: "holder of " + request.Resource}
	held := a.within(a.Patience, func(ctx context.Context) Operation { return a.Acquire(ctx, holder) })
	if held.Outcome != Done {
		a.giveBack(Hold{Process: holder.Process}, request.Resource)
		return
	}
	thaw, err := a.at[0].AcquireFrozen(request)
	if err != nil {
		a.giveBack(held.Holder, request.Resource)
		return
	}
	defer thaw()
	queued := func(n int) bool {
		o := a.within(a.Patience, func(ctx context.Context) Operation { return a.Queue(ctx, request.Resource) })
		return len(o.Queue) == n
	}
	for !queued(1) && a.working.Err() == nil {
		a.pause(time.Millisecond)
	}
	repeated, other := make(chan Operation), a.at[a.rand.IntN(len(a.at))]
	go func() {
		repeated <- a.within(request.Wait+a.Patience, func(ctx context.Context) Operation { return other.Acquire(ctx, request) })
	}()
	a.pause(a.upTo(100 * time.Millisecond))
	a.giveBack(held.Holder, request.Resource)
	if got := <-repeated; got.Outcome == Done {
		a.giveBack(got.Holder, request.Resource)
		a.pause(a.upTo(2 * time.Second))
		a.within(a.Patience, func(ctx context.Context) Operation { return a.Status(ctx, request.Resource) })
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

// halfClosed returns the answer to a request after which the client's stream has ended.
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

// body ends with its connection.
type body struct {
	io.Reader
	io.Closer
}

// AcquireFrozen sends an acquire whose answer nobody reads. The function that it returns ends and records it.
func (c *Client) AcquireFrozen(o Operation) (thaw func(), err error) {
	request, err := newRequest(context.Background(), http.MethodPost, c.url+"/locks/request", acquireBody(o))
	if err != nil {
		return nil, err
	}
	o.Kind, o.Client, o.Server, o.Direct, o.Outcome, o.Frozen = Acquire, c.id, c.server, c.direct, Unknown, true
	o.Called = c.history.Since()
	conn, err := c.open(request)
	if err != nil {
		return nil, err
	}
	return func() {
		_ = conn.Close()
		o.Returned = c.history.Since()
		c.history.Add(o)
	}, nil
}
