package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf16"

	"golang.org/x/term"

	"resource-lock-manager/client"
)

// reporter writes to stderr what happens to a lock: as text, as JSON objects, or not at
// all. On a terminal the last line may be one that is rewritten. It is safe for
// concurrent use. A write that fails is ignored: a full disk or a closed pipe must not
// end the command that runs.
type reporter struct {
	resource string
	out      *printer
	quiet    bool
	verbose  bool
	json     bool
	terminal *os.File      // nil: out is none
	grace    time.Duration // how long before the lock's deadline the work is stopped

	mu      sync.Mutex
	pending bool // the last line is to be rewritten
}

// event is one line of --json.
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

// holder is who holds the resource.
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

// report writes an event, or else the text if it is not empty.
func (r *reporter) report(e event, format string, a ...any) {
	if r.quiet {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.json {
		e.At, e.ResourceName = time.Now().UTC(), r.resource
		line, _ := json.Marshal(e) // it has no value that cannot be encoded
		r.out.print(escapeJSON(string(line)) + "\n")
		return
	}
	if format == "" {
		return
	}
	r.clear()
	r.out.print("lockctl: " + escape(fmt.Sprintf(format, a...)) + "\n")
}

// detail is report, but the text is for --verbose only.
func (r *reporter) detail(e event, format string, a ...any) {
	if !r.verbose {
		format = ""
	}
	r.report(e, format, a...)
}

// rewrite shows a line that the next one replaces.
func (r *reporter) rewrite(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line = escape(line)
	if width, _, err := term.GetSize(int(r.terminal.Fd())); err == nil && width > 0 {
		line = cut(line, width-1) // a character in the last column may move the cursor to the next line
	}
	r.clear()
	r.out.print(line)
	r.pending = true
}

// cut shortens a line to a number of columns.
func cut(line string, most int) string {
	columns := func(r rune) int {
		if r >= 0x1100 { // from here on there are characters that are two columns wide
			return 2
		}
		return 1
	}
	total := 0
	for _, r := range line {
		total += columns(r)
	}
	if total <= most {
		return line
	}
	total = columns('…')
	for i, r := range line {
		if total += columns(r); total > most {
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

// done removes a line that would have been rewritten.
func (r *reporter) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
}

// flush waits a moment for what was reported to be written.
func (r *reporter) flush() { r.out.flush() }

// close waits until all is written.
func (r *reporter) close() { r.out.close() }

// escapeJSON is escape for text in JSON: its strings may hold all of Unicode.
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

// printer writes in the background. Nobody may read what lockctl writes, as after Ctrl-S
// on a terminal or when a pager stands still; the lock must be renewed and the command be
// stopped then as well.
type printer struct {
	queue chan printed
	ended chan struct{}
}

// printed is a text, or the wish to know that all before it is written.
type printed struct {
	text    string
	written chan<- struct{} // nil: a text
	last    bool            // whatever follows is lost
}

const (
	printerQueue = 1000 // texts; what comes when it is full is lost
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

// close waits until all is written, for ever if need be.
func (p *printer) close() {
	p.queue <- printed{last: true}
	<-p.ended
}

func seconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}

// observer reports what the client does.
func (r *reporter) observer() client.Observer {
	failing := false // between a renewal that failed and one that did not
	var mu sync.Mutex
	swap := func(now bool) (before bool) {
		mu.Lock()
		defer mu.Unlock()
		before, failing = failing, now
		return before
	}
	return client.Observer{
		Acquired: func(l *client.Lock, waited time.Duration) {
			r.detail(event{Event: "acquired", ProcessID: l.Owner(), FencingToken: l.FencingToken(), WaitedSeconds: seconds(waited)},
				"acquired %s, fencing token %d", l.Name(), l.FencingToken())
		},
		Renewed: func(l *client.Lock) {
			deadline := l.Deadline().UTC()
			e := event{Event: "renewed", FencingToken: l.FencingToken(), Deadline: &deadline}
			if swap(false) {
				r.report(e, "renewed %s again", l.Name())
				return
			}
			r.detail(e, "renewed %s", l.Name())
		},
		RenewFailed: func(l *client.Lock, err error) {
			deadline := l.Deadline().UTC()
			e := event{Event: "renew_failed", FencingToken: l.FencingToken(), Deadline: &deadline, Error: err.Error()}
			if swap(true) {
				r.detail(e, "%v", err)
				return
			}
			r.report(e, "cannot renew %s, trying for another %v: %v", l.Name(), max(time.Until(l.Deadline())-r.grace, 0).Round(time.Second), err)
		},
		Released: func(_ *client.Lock, held time.Duration) {
			r.detail(event{Event: "released", HeldSeconds: seconds(held)}, "released %s after %v", r.resource, held.Round(time.Millisecond))
		},
		Retried: func(operation string, err error, n int) {
			if n == 1 && operation != "status" && operation != "queue" {
				r.report(event{Event: "retrying", Error: err.Error()}, "%v; trying again", err)
			}
		},
	}
}
