// Package logbuffer keeps a log that nobody reads, or that cannot be written, from holding up the
// program: a slow terminal, a pipe whose reader stands still or has ended, a full disk.
package logbuffer

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// limit is the maximum number of bytes that wait to be written. As many again may be in
	// the hands of the loop that writes.
	limit = 4 << 20

	// chunk is the maximum number of bytes of several records that are written at once. A pipe
	// takes that many as a whole (PIPE_BUF), so records of processes that share it do not mix.
	chunk = 4096

	// flushTime is how long Stop waits for a log that is not read.
	flushTime = time.Second

	// retryTime is the pause before a write is repeated that a nonblocking terminal refused.
	retryTime = 10 * time.Millisecond
)

// ErrFull is the cause of records that were dropped because too many waited already.
var ErrFull = errors.New("records are written faster than the log is read")

// Writer passes records on to another writer, in their order, without ever waiting for it.
// Records that it cannot keep or write are dropped as a whole, and counted. It is for slog and
// its like: each call of Write is one record, and a record ends with a line break.
type Writer struct {
	out    io.Writer
	notice func(w io.Writer, dropped int64, cause error)

	mu         sync.Mutex
	waiting    []byte
	overflowed int64 // records dropped since the loop last took what was waiting

	// These belong to the loop.
	spare []byte
	lost  int64 // records dropped that no notice has told of yet
	cause error // why the last of them was dropped
	torn  bool  // a write ended within a record

	dropped    atomic.Int64
	start      sync.Once
	stop       sync.Once
	wake       chan struct{}
	quit, done chan struct{}
}

// New returns a Writer that writes to out once it is started. Where records were dropped, it writes
// what notice makes of their number and of the last cause.
func New(out io.Writer, notice func(w io.Writer, dropped int64, cause error)) *Writer {
	return &Writer{
		out:    out,
		notice: notice,
		wake:   make(chan struct{}, 1),
		quit:   make(chan struct{}),
		done:   make(chan struct{}),
	}
}

// Start runs the loop that writes. Until then records wait. Calls after the first do nothing.
func (w *Writer) Start() {
	w.start.Do(func() { go w.run() })
}

// Stop writes what is left, for a second at most, and ends the loop. Records that are written
// after that are lost. It may be called any number of times, also without Start.
func (w *Writer) Stop() {
	w.Start()
	w.stop.Do(func() { close(w.quit) })
	select {
	case <-w.done:
	case <-time.After(flushTime):
	}
}

// Dropped is the number of records dropped so far.
func (w *Writer) Dropped() int64 { return w.dropped.Load() }

// Write takes one record. It never fails: the record is written later, or counted as dropped.
func (w *Writer) Write(record []byte) (int, error) {
	w.mu.Lock()
	// Once one has been dropped the next are too, so that the notice stands where records are missing.
	if w.overflowed > 0 || len(w.waiting)+len(record) > limit {
		w.overflowed++
		w.dropped.Add(1)
	} else {
		w.waiting = append(w.waiting, record...)
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // the loop will look anyway
	}
	return len(record), nil
}

func (w *Writer) run() {
	defer close(w.done)
	for {
		select {
		case <-w.wake:
			w.flush()
		case <-w.quit:
			w.flush()
			return
		}
	}
}

// flush writes all that waits, and then what is to be said about records that did not fit.
func (w *Writer) flush() {
	w.mu.Lock()
	records, overflowed := w.waiting, w.overflowed
	w.waiting, w.overflowed = w.spare, 0
	w.mu.Unlock()

	for rest := records; len(rest) > 0; {
		n := wholeRecords(rest)
		w.report()
		w.writeRecords(rest[:n])
		rest = rest[n:]
	}
	if overflowed > 0 {
		w.lost += overflowed
		w.cause = ErrFull
	}
	w.report()

	w.spare = nil
	if cap(records) <= limit/4 { // the memory of a burst is given back
		w.spare = records[:0]
	}
}

// wholeRecords is the length of the records at the beginning of text that are written together.
func wholeRecords(text []byte) int {
	if n := bytes.LastIndexByte(text[:min(chunk, len(text))], '\n'); n >= 0 {
		return n + 1
	}
	if n := bytes.IndexByte(text, '\n'); n >= 0 {
		return n + 1
	}
	return len(text)
}

func (w *Writer) writeRecords(records []byte) {
	n, err := w.write(records)
	if err == nil {
		return
	}
	lost := int64(bytes.Count(records[n:], []byte("\n")))
	w.lost += lost
	w.cause = err
	w.dropped.Add(lost)
}

// report writes the notice of what is lost. If that fails, the next call tries again.
func (w *Writer) report() {
	if w.lost == 0 {
		return
	}
	var notice bytes.Buffer
	w.notice(&notice, w.lost, w.cause)
	if _, err := w.write(notice.Bytes()); err == nil {
		w.lost = 0
	}
}

// write begins a new line where the write before it ended within one.
func (w *Writer) write(text []byte) (int, error) {
	if w.torn {
		if _, err := w.out.Write([]byte("\n")); err != nil {
			return 0, err
		}
		w.torn = false
	}
	written := 0
	for {
		n, err := w.out.Write(text[written:])
		written += n
		// Another program on the same terminal may have made it nonblocking.
		if err != nil && errors.Is(err, syscall.EAGAIN) {
			<-time.After(retryTime)
			continue
		}
		w.torn = err != nil && written > 0 && text[written-1] != '\n'
		return written, err
	}
}
