package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"

	"golang.org/x/term"

	"resource-lock-manager/client"
)

// reporter reports the events of a lock on stderr: as text, as JSON objects, or not at
// all. On a terminal it can rewrite the last line. It is safe for concurrent use. It
// ignores failed writes: a full disk or a closed pipe must not end the running command.
type reporter struct {
	resource string
	out      *printer
	quiet    bool
	verbose  bool
	json     bool
	terminal *os.File      // nil: out is not a terminal
	grace    time.Duration // the time between stopping the command and the lock's deadline

	mu      sync.Mutex
	pending bool // the last line will be rewritten
}

// event is one line of the output of --json.
type event struct {
	Event         string     `json:"event"`
	At            time.Time  `json:"at"`
	ResourceName  string     `json:"resource_name"`
	ProcessID     string     `json:"process_id,omitempty"`
	FencingToken  int64      `json:"fencing_token,omitempty"`
	WaitedSeconds *float64   `json:"waited_seconds,omitempty"`
	HeldSeconds   *float64   `json:"held_seconds,omitempty"`
	Deadline      *time.Time `json:"deadline,omitempty"`
	Why           string     `json:"why,omitempty"`
	By            string     `json:"by,omitempty"`
	Reason        string     `json:"reason,omitempty"`
	Holder        *holder    `json:"holder,omitempty"`
	Waiters       int        `json:"waiters,omitempty"`
	Position      int        `json:"position,omitempty"`
	ExitCode      int        `json:"exit_code,omitempty"`
	Error         string     `json:"error,omitempty"`
}

// holder is the holder of the resource.
type holder struct {
	ProcessID    string    `json:"process_id"`
	FencingToken int64     `json:"fencing_token"`
	LockedAt     time.Time `json:"locked_at"`
	Reason       string    `json:"reason,omitempty"`
}

func holderOf(h *client.Hold) *holder {
	if h == nil {
		return nil
	}
	return &holder{h.Owner, h.FencingToken, h.LockedAt.UTC(), h.Reason}
}

// report writes the event with --json, and otherwise the text if it is not empty.
func (r *reporter) report(e event, format string, a ...any) {
	if r.quiet {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.json {
		e.At, e.ResourceName = time.Now().UTC(), r.resource
		line, _ := json.Marshal(e) // cannot fail
		r.out.print(escapeJSON(string(line)) + "\n")
		return
	}
	if format == "" {
		return
	}
	r.clear()
	r.out.print("lockctl: " + escape(fmt.Sprintf(format, a...)) + "\n")
}

// detail is like report, but writes the text with --verbose only.
func (r *reporter) detail(e event, format string, a ...any) {
	if !r.verbose {
		format = ""
	}
	r.report(e, format, a...)
}

// rewrite shows a line that the next line replaces.
func (r *reporter) rewrite(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line = escape(line)
	if width, _, err := term.GetSize(int(r.terminal.Fd())); err == nil && width > 0 {
		line = truncate(line, width-1) // a character in the last column may move the cursor to the next line
	}
	r.clear()
	r.out.print(line)
	r.pending = true
}

// truncate shortens a line to at most maxColumns.
func truncate(line string, maxColumns int) string {
	columns := func(r rune) int {
		if r >= 0x1100 { // characters from here on may be two columns wide
			return 2
		}
		return 1
	}
	total := 0
	for _, r := range line {
		total += columns(r)
	}
	if total <= maxColumns {
		return line
	}
	total = columns('…')
	for i, r := range line {
		if total += columns(r); total > maxColumns {
			return line[:i] + "…"
		}
	}
	return line
}

func (r *reporter) clear() {
	if r.pending {
		r.out.print("\r\x1b[K")
		r.pending = false
	}
}

// done removes a line that rewrite has shown.
func (r *reporter) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
}

// flush waits at most flushTime until all reports are written.
func (r *reporter) flush() { r.out.flush() }

// close waits until all reports are written, without a timeout.
func (r *reporter) close() { r.out.close() }

// escapeJSON is like escape, for JSON text.
func escapeJSON(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case strconv.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	return b.String()
}

// printer writes in the background. The output of lockctl may not be read, as after
// Ctrl-S on a terminal or while a pager waits. lockctl must renew the lock and stop the
// command also then.
type printer struct {
	queue chan printed
	ended chan struct{}
}

// printed is a text to write, or a request of flush or close.
type printed struct {
	text    string
	written chan<- struct{} // of flush: closed when all earlier texts are written
	last    bool            // of close: later texts are lost
}

const (
	printerQueue = 1000 // the maximum number of queued texts; further texts are lost
	flushTime    = time.Second
)

func newPrinter(out io.Writer) *printer {
	p := &printer{queue: make(chan printed, printerQueue), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		for one := range p.queue {
			switch {
			case one.last:
				return
			case one.written != nil:
				close(one.written)
			default:
				_, _ = io.WriteString(out, one.text)
			}
		}
	}()
	return p
}

func (p *printer) print(text string) {
	select {
	case p.queue <- printed{text: text}:
	default:
	}
}

func (p *printer) flush() {
	written := make(chan struct{})
	select {
	case p.queue <- printed{written: written}:
	default:
		return
	}
	select {
	case <-written:
	case <-time.After(flushTime):
	}
}

// close waits until all texts are written, without a timeout.
func (p *printer) close() {
	p.queue <- printed{last: true}
	<-p.ended
}

func seconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}

// observer returns an observer that reports the events of the client.
func (r *reporter) observer() client.Observer {
	var failing atomic.Bool // the last renewal has failed
	return client.Observer{
		Acquired: func(l *client.Lock, waited time.Duration) {
			e := event{
				Event: "acquired", ProcessID: l.Owner(), FencingToken: l.FencingToken(),
				WaitedSeconds: seconds(waited),
			}
			r.detail(e, "acquired %s, fencing token %d", l.Name(), l.FencingToken())
		},
		Renewed: func(l *client.Lock) {
			deadline := l.Deadline().UTC()
			e := event{Event: "renewed", FencingToken: l.FencingToken(), Deadline: &deadline}
			if failing.Swap(false) {
				r.report(e, "renewed %s again", l.Name())
				return
			}
			r.detail(e, "renewed %s", l.Name())
		},
		RenewFailed: func(l *client.Lock, err error) {
			deadline := l.Deadline().UTC()
			e := event{
				Event: "renew_failed", FencingToken: l.FencingToken(), Deadline: &deadline, Error: err.Error(),
			}
			if failing.Swap(true) {
				r.detail(e, "%v", err)
				return
			}
			left := max(time.Until(l.Deadline())-r.grace, 0).Round(time.Second)
			r.report(e, "cannot renew %s, retrying for %v: %v", l.Name(), left, err)
		},
		Released: func(_ *client.Lock, held time.Duration) {
			r.detail(event{Event: "released", HeldSeconds: seconds(held)},
				"released %s after %v", r.resource, held.Round(time.Millisecond))
		},
		Retried: func(operation string, err error, n int) {
			if n == 1 && operation != "status" && operation != "queue" {
				r.report(event{Event: "retrying", Error: err.Error()}, "%v; retrying", err)
			}
		},
	}
}
