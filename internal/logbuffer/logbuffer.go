// Package logbuffer writes a log without ever blocking the program. The log may be a slow
// terminal, a pipe whose reader has stopped or ended, or a file on a full disk.
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
	// limit is the maximum number of buffered bytes. The loop may be writing the same
	// number of bytes in addition.
	limit = 4 << 20

	// chunk is the maximum size of several records that are written together. Writes of
	// this size to a pipe are atomic (PIPE_BUF), so records of processes that share the
	// pipe are not interleaved.
	chunk = 4096

	// flushTime is how long Stop waits for the loop.
	flushTime = time.Second

	// retryTime is the pause before a write to a nonblocking terminal is repeated.
	retryTime = 10 * time.Millisecond
)

// ErrFull is the cause of records that were dropped because the buffer was full.
var ErrFull = errors.New("records are written faster than the log is read")

// Writer passes records on to another writer, in their order, without waiting for it. A
// record that cannot be buffered or written is dropped as a whole and counted. Writer is
// for loggers such as slog: each call of Write is one record that ends with a line break.
type Writer struct {
	out    io.Writer
	notice func(w io.Writer, dropped int64, cause error)

	mu         sync.Mutex
	buffer     []byte
	overflowed int64 // records dropped since the loop last took the buffer

	// Only the loop uses these fields.
	spare   []byte // memory for the next buffer
	lost    int64  // dropped records that no notice has reported yet
	cause   error  // why the last of them was dropped
	partial bool   // the last write ended within a record

	dropped    atomic.Int64
	start      sync.Once
	stop       sync.Once
	wake       chan struct{}
	quit, done chan struct{}
}

// New returns a Writer that writes to out after Start. In the place of dropped records it
// writes the output of notice, which gets their number and the last cause.
func New(out io.Writer, notice func(w io.Writer, dropped int64, cause error)) *Writer {
	return &Writer{
		out:    out,
		notice: notice,
		wake:   make(chan struct{}, 1),
		quit:   make(chan struct{}),
		done:   make(chan struct{}),
	}
}

// Start starts the loop that writes the buffered records. Calls after the first do
// nothing.
func (w *Writer) Start() {
	w.start.Do(func() { go w.run() })
}

// Stop writes the buffered records, for at most a second, and ends the loop. Later
// records are lost. It may be called any number of times, also without Start.
func (w *Writer) Stop() {
	w.Start()
	w.stop.Do(func() { close(w.quit) })
	select {
	case <-w.done:
	case <-time.After(flushTime):
	}
}

// Dropped returns the number of records dropped so far.
func (w *Writer) Dropped() int64 { return w.dropped.Load() }

// Write buffers one record. It never fails: the record is written later, or counted as
// dropped.
func (w *Writer) Write(record []byte) (int, error) {
	w.mu.Lock()
	// After a dropped record all further records are dropped until the loop takes the
	// buffer, so that the notice is written in the place of the missing records.
	if w.overflowed > 0 || len(w.buffer)+len(record) > limit {
		w.overflowed++
		w.dropped.Add(1)
	} else {
		w.buffer = append(w.buffer, record...)
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // the loop has been woken already
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

// flush writes the buffer, and then a notice of the records that did not fit into it.
func (w *Writer) flush() {
	w.mu.Lock()
	records, overflowed := w.buffer, w.overflowed
	w.buffer, w.overflowed = w.spare, 0
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
	if cap(records) <= limit/4 { // the memory of a burst is released
		w.spare = records[:0]
	}
}

// wholeRecords returns the length of the first records of text that are written together.
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

// report writes a notice of the lost records. If it fails, the next call tries again.
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

// write writes text, after a line break if the last write ended within a record.
func (w *Writer) write(text []byte) (int, error) {
	if w.partial {
		if _, err := w.out.Write([]byte("\n")); err != nil {
			return 0, err
		}
		w.partial = false
	}
	written := 0
	for {
		n, err := w.out.Write(text[written:])
		written += n
		// Another program may have made the terminal nonblocking.
		if err != nil && errors.Is(err, syscall.EAGAIN) {
			<-time.After(retryTime)
			continue
		}
		w.partial = err != nil && written > 0 && text[written-1] != '\n'
		return written, err
	}
}
