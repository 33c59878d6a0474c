package logbuffer_test

import (
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"resource-lock-manager/internal/logbuffer"
)

// BenchmarkRecord logs the line of a request to a pipe, directly and buffered.
func BenchmarkRecord(b *testing.B) {
	for _, buffered := range []bool{false, true} {
		b.Run(map[bool]string{false: "direct", true: "buffered"}[buffered], func(b *testing.B) {
			reader, pipe, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			read := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, reader)
				read <- err
			}()
			var out io.Writer = pipe
			w := logbuffer.New(pipe, notice)
			if buffered {
				w.Start()
				out = w
			}
			log := slog.New(slog.NewJSONHandler(out, nil))
			for b.Loop() {
				log.LogAttrs(b.Context(), slog.LevelInfo, "request",
					slog.String("request_id", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"), slog.String("method", "POST"),
					slog.String("route", "/locks/request"), slog.Int("status", 200),
					slog.Duration("duration", 1234*time.Microsecond))
			}
			w.Stop()
			b.ReportMetric(float64(w.Dropped())/float64(b.N), "dropped/op")
			if err := pipe.Close(); err != nil {
				b.Fatal(err)
			}
			if err := <-read; err != nil {
				b.Fatal(err)
			}
		})
	}
}
