package logbuffer_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"resource-lock-manager/internal/logbuffer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func notice(w io.Writer, dropped int64, cause error) {
	fmt.Fprintf(w, "%d dropped: %v\n", dropped, cause)
}

// output is a log whose first writes fail.
type output struct {
	mu       sync.Mutex
	text     strings.Builder
	failures []failure // of the next writes
	largest  int       // the size of the largest write
}

// failure is a write that ends early.
type failure struct {
	after int // the number of bytes written
	err   error
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.largest = max(o.largest, len(p))
	if len(o.failures) == 0 {
		return o.text.Write(p)
	}
	f := o.failures[0]
	o.failures = o.failures[1:]
	o.text.Write(p[:f.after])
	return f.after, f.err
}

func write(t *testing.T, w io.Writer, record string) {
	t.Helper()
	if n, err := io.WriteString(w, record); err != nil || n != len(record) {
		t.Fatalf("Write: %d, %v", n, err)
	}
}

func TestNothingIsLostOrReordered(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*logbuffer.Writer){
		"started":         (*logbuffer.Writer).Start,
		"started twice":   func(w *logbuffer.Writer) { w.Start(); w.Start() },
		"started by Stop": func(*logbuffer.Writer) {},
	}
	for name, start := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := &output{}
			w := logbuffer.New(out, notice)
			start(w)
			var want strings.Builder
			for i := range 10_000 {
				record := fmt.Sprintln("record", i, strings.Repeat("x", i%300))
				want.WriteString(record)
				write(t, w, record)
			}
			long := strings.Repeat("y", 10_000) + "\n"
			want.WriteString(long + "the last one\n")
			write(t, w, long)
			write(t, w, "the last one\n")
			w.Stop()
			w.Stop()
			if out.text.String() != want.String() {
				t.Errorf("%d bytes were written, want the %d bytes that were logged", out.text.Len(), want.Len())
			}
			if w.Dropped() != 0 {
				t.Errorf("%d dropped", w.Dropped())
			}
			// Records of processes that share a pipe must not be interleaved.
			if out.largest != len(long) {
				t.Errorf("several records were written together, in %d bytes", out.largest)
			}
		})
	}
}

// Records can be written while the log is not read. Afterwards the log has a notice in
// the place of the dropped records.
func TestReaderThatStops(t *testing.T) {
	t.Parallel()
	reader, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w := logbuffer.New(pipe, notice)
	w.Start()
	record := strings.Repeat("x", 999) + "\n"
	const count = 10_000 // more than the buffer holds
	for i := range count {
		write(t, w, fmt.Sprintf("%05d%s", i, record[5:]))
	}
	dropped := w.Dropped()
	if dropped == 0 || dropped == count {
		t.Fatalf("%d of %d dropped", dropped, count)
	}

	lines := bufio.NewScanner(reader)
	for i := range count - dropped {
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), fmt.Sprintf("%05d", i)) {
			t.Fatalf("record %d is %.10q, %v", i, lines.Text(), lines.Err())
		}
	}
	want := []string{fmt.Sprintf("%d dropped: %v", dropped, logbuffer.ErrFull), "later"}
	if !lines.Scan() || lines.Text() != want[0] {
		t.Fatalf("got %.100q after the records, want %q", lines.Text(), want[0])
	}
	write(t, w, "later\n")
	if !lines.Scan() || lines.Text() != want[1] {
		t.Errorf("got %.100q after the notice, want %q", lines.Text(), want[1])
	}
	w.Stop()
	if err := errors.Join(pipe.Close(), reader.Close()); err != nil {
		t.Fatal(err)
	}
	if w.Dropped() != dropped {
		t.Errorf("%d dropped, and %d later", dropped, w.Dropped()-dropped)
	}
}

func TestWritesThatFail(t *testing.T) {
	t.Parallel()
	full := syscall.ENOSPC
	tests := map[string]struct {
		failures []failure
		want     string
		dropped  int64
	}{
		"never": {nil, "one\ntwo\nthree\n", 0},
		"the first": {
			[]failure{{0, full}},
			"1 dropped: no space left on device\ntwo\nthree\n", 1,
		},
		"within a record": {
			[]failure{{2, full}},
			"on\n1 dropped: no space left on device\ntwo\nthree\n", 1,
		},
		"after a record": { // the record is complete
			[]failure{{4, full}},
			"one\ntwo\nthree\n", 0,
		},
		"the notice too": {
			[]failure{{0, full}, {0, full}, {0, full}, {0, syscall.EIO}},
			"2 dropped: input/output error\nthree\n", 2,
		},
		"within the notice": {
			[]failure{{0, full}, {3, full}},
			"1 d\n1 dropped: no space left on device\ntwo\nthree\n", 1,
		},
		"the line break after a part": {
			[]failure{{1, full}, {0, full}, {0, full}, {0, full}},
			"o\n2 dropped: no space left on device\nthree\n", 2,
		},
		"temporarily": { // another program has made the terminal nonblocking
			[]failure{{0, syscall.EAGAIN}, {1, syscall.EAGAIN}},
			"one\ntwo\nthree\n", 0,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				out := &output{failures: test.failures}
				w := logbuffer.New(out, notice)
				w.Start()
				for _, record := range []string{"one\n", "two\n", "three\n"} {
					write(t, w, record)
					<-time.After(time.Second) // until the loop has written it
				}
				w.Stop()
				if diff := cmp.Diff(test.want, out.text.String()); diff != "" {
					t.Errorf("log (-want +got):\n%s", diff)
				}
				if w.Dropped() != test.dropped {
					t.Errorf("%d dropped, want %d", w.Dropped(), test.dropped)
				}
			})
		})
	}
}

func TestStopDoesNotWaitForAReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reader, pipe := io.Pipe()
		w := logbuffer.New(pipe, notice)
		w.Start()
		write(t, w, "never read\n")
		began := time.Now()
		w.Stop()
		if took := time.Since(began); took != time.Second {
			t.Errorf("Stop took %v, want 1s", took)
		}
		if err := reader.Close(); err != nil { // ends the write of the loop
			t.Fatal(err)
		}
		synctest.Wait()
		if w.Dropped() != 1 {
			t.Errorf("%d dropped, want 1", w.Dropped())
		}
	})
}
