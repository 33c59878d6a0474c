package robust_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/wire"
)

// caller is a connection to a server without any proxy. It makes one request at a time.
type caller struct {
	conn net.Conn
	in   *bufio.Reader
}

// reply has the fields of an answer that these tests read.
type reply struct {
	Status     int       `json:"-"`
	RetryAfter string    `json:"-"`
	Code       wire.Code `json:"code"`
	Data       struct {
		ProcessID    string `json:"process_id"`
		FencingToken int64  `json:"fencing_token"`
		IsLocked     bool   `json:"is_locked"`
		TotalLocks   int    `json:"total_locks"`
		Locks        []struct {
			ResourceName string `json:"resource_name"`
			FencingToken int64  `json:"fencing_token"`
		} `json:"locks"`
		Events []struct {
			Event string `json:"event"`
		} `json:"events"`
	} `json:"data"`
}

// dial opens n connections. They end with the test at the latest.
func dial(t *testing.T, s *robust.Server, n int) []*caller {
	t.Helper()
	var limit syscall.Rlimit // the Go runtime has raised the soft limit to the hard one
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if need := uint64(n + 500); limit.Cur < need {
		t.Fatalf("this test needs %d open files and may have %d: raise the hard limit (ulimit -Hn)", need, limit.Cur)
	}
	callers := make([]*caller, n)
	for i := range callers {
		conn, err := net.Dial("tcp", s.Front.Upstream())
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		callers[i] = &caller{conn, bufio.NewReader(conn)}
	}
	return callers
}

func closeAll(callers []*caller) {
	for _, c := range callers {
		_ = c.conn.Close()
	}
}

// text returns the text of a request.
func text(method, path, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: lockd\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, path, len(body), body)
}

func acquireText(o robust.Operation) string {
	body := wire.AcquireRequest{ResourceName: o.Resource, ProcessID: o.Process}
	if o.Wait > 0 {
		wait := o.Wait.Seconds()
		body.WaitSeconds = &wait
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		panic(err) // every field can be encoded
	}
	return text(http.MethodPost, "/locks/request", string(encoded))
}

func releaseText(resource, process string) string {
	query := url.Values{"resource_name": {resource}, "process_id": {process}}
	return text(http.MethodDelete, "/locks/release?"+query.Encode(), "")
}

func getText(path string, query url.Values) string {
	return text(http.MethodGet, path+"?"+query.Encode(), "")
}

// call sends a request and reads its answer.
func (c *caller) call(request string) (reply, error) {
	if err := c.conn.SetDeadline(time.Now().Add(2 * apptest.Timeout)); err != nil {
		return reply{}, err
	}
	if _, err := io.WriteString(c.conn, request); err != nil {
		return reply{}, err
	}
	return c.answer()
}

func (c *caller) answer() (reply, error) {
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	r := reply{Status: response.StatusCode, RetryAfter: response.Header.Get("Retry-After")}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return reply{}, err
	}
	return r, json.Unmarshal(body, &r)
}

// want makes a call that must succeed.
func (c *caller) want(t *testing.T, request string) reply {
	t.Helper()
	r, err := c.call(request)
	if err != nil || r.Status != http.StatusOK {
		line, _, _ := strings.Cut(request, "\r\n")
		t.Fatalf("%s: %+v, %v", line, r, err)
	}
	return r
}

// locks returns the tokens of all held locks with the prefix, by resource.
func locks(t *testing.T, c *caller, prefix string) map[string]int64 {
	t.Helper()
	held := map[string]int64{}
	for _, l := range c.want(t, getText("/locks/all-locked", url.Values{"prefix": {prefix}})).Data.Locks {
		held[l.ResourceName] = l.FencingToken
	}
	return held
}

// probe is a client that acquires and releases a lock again and again, while other
// clients misbehave.
type probe struct {
	t       *testing.T
	process string
	caller  *caller
	pairs   atomic.Int64
	refused int
	slowest time.Duration
}

var probes atomic.Int64

func newProbe(t *testing.T, s *robust.Server) *probe {
	return &probe{t: t, process: fmt.Sprint("probe ", probes.Add(1)), caller: dial(t, s, 1)[0]}
}

// pair acquires and releases a lock, and returns how long that took.
func (p *probe) pair() time.Duration {
	p.t.Helper()
	begun := time.Now()
	resource := "of " + p.process
	p.retryWhileOverloaded(acquireText(robust.Operation{Resource: resource, Process: p.process}))
	p.retryWhileOverloaded(releaseText(resource, p.process))
	took := time.Since(begun)
	p.pairs.Add(1)
	p.slowest = max(p.slowest, took)
	return took
}

func (p *probe) retryWhileOverloaded(request string) {
	p.t.Helper()
	for { // until the overload ends at the latest
		r, err := p.caller.call(request)
		switch {
		case err != nil || r.Status != http.StatusOK && r.Code != wire.CodeOverloaded:
			p.t.Errorf("%s: %+v, %v", p.process, r, err)
			return
		case r.Status == http.StatusOK:
			return
		}
		p.refused++
		<-time.After(5 * time.Millisecond)
	}
}

// served reports whether it made more pairs than it may have started before the other
// clients.
func (p *probe) served() bool { return p.pairs.Load() >= 3 }

// inBackground starts making pairs. The returned function stops that and checks that the
// probe was served.
func (p *probe) inBackground() (end func()) {
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				p.pair()
			}
		}
	})
	return func() {
		p.t.Helper()
		close(done)
		all.Wait()
		fmt.Fprintf(p.t.Output(), "meanwhile %d pairs of %s, the slowest took %v, %d refusals\n",
			p.pairs.Load(), p.process, p.slowest.Round(time.Millisecond), p.refused)
		if !p.served() {
			p.t.Errorf("%s was not served meanwhile", p.process)
		}
	}
}

// health is what an unloaded server shows.
type health struct {
	server *robust.Server
	pair   time.Duration
	files  int
}

func healthOf(t *testing.T, s *robust.Server) health {
	t.Helper()
	p := newProbe(t, s)
	var took []time.Duration
	for range 21 {
		took = append(took, p.pair())
	}
	slices.Sort(took)
	h := health{s, took[len(took)/2], openFiles(t, s)}
	closeAll([]*caller{p.caller})
	return h
}

// wantRecovered waits until the server is as fast as before and the connections of the
// test have gone.
func (h health) wantRecovered(t *testing.T) {
	t.Helper()
	apptest.Eventually(t, "connections have ended", func() bool { return openFiles(t, h.server) <= h.files+30 })
	p := newProbe(t, h.server)
	apptest.Eventually(t, "a pair takes as long as before",
		func() bool { return p.pair() < 10*h.pair+20*time.Millisecond })
	fmt.Fprintf(t.Output(), "a pair took %v before; %v\n", h.pair.Round(time.Microsecond), h.server.Memory(t))
}

func openFiles(t *testing.T, s *robust.Server) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.ID()))
	must(t, err)
	return len(files)
}

// wantMemoryBelow checks that a server has never had more than limit megabytes of memory.
// With the race detector a server needs several times as much.
func wantMemoryBelow(t *testing.T, s *robust.Server, limit int64) {
	t.Helper()
	m := s.Memory(t)
	if m.Peak > limit*1e6 {
		t.Errorf("%v, want at most %d MB", m, limit)
	}
}
