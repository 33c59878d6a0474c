package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// result is what one round measured. Latencies are in milliseconds. In an open loop they
// count from the time at which the operation was due, so that a stall of the server
// counts for all operations that wait during it. If the connection was ready before that
// time, they count from the sending: a late timer is not the server's latency.
type result struct {
	Operations int64   `json:"operations"`
	Seconds    float64 `json:"seconds"`
	PerSecond  float64 `json:"per_second"`
	P50        float64 `json:"p50_ms"`
	P90        float64 `json:"p90_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p999_ms"`
	Max        float64 `json:"max_ms"`
	Spread     float64 `json:"spread"` // (most - fewest operations of a connection) / mean
}

// newHistogram returns a histogram for latencies in microseconds, up to two minutes, with
// three significant digits.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 120_000_000, 3) }

// measure runs a workload for the duration of the options. It fails if any operation
// fails.
func measure(w workload, o options, label string, progress io.Writer) (result, error) {
	var (
		all        sync.WaitGroup
		histograms = make([]*hdrhistogram.Histogram, o.connections)
		counts     = make([]int64, o.connections)
		faults     = make([]error, o.connections)
		operations = make([]operation, o.connections)
		shared     round
		due        atomic.Int64 // the number of operations of the open loop that were started
		done       atomic.Int64
		failed     atomic.Bool
	)
	for i := range o.connections {
		c, err := dial(o.url)
		if err != nil {
			return result{}, err
		}
		defer c.close()
		histograms[i], operations[i] = newHistogram(), w.operation(c, i, &shared)
	}
	stopProgress := showProgress(progress, label, &done)
	begun := time.Now()
	shared.begun = begun
	for i := range o.connections {
		all.Go(func() {
			for !failed.Load() && (o.until == nil || !o.until()) {
				from := time.Now()
				if o.rate > 0 {
					from = begun.Add(time.Duration(float64(due.Add(1)-1) / o.rate * float64(time.Second)))
				}
				if from.Sub(begun) >= o.duration {
					return
				}
				if early := time.Until(from); early > 0 {
					<-time.After(early)
					from = time.Now()
				}
				took, err := operations[i](from)
				if err != nil {
					faults[i] = err
					failed.Store(true)
					return
				}
				if took >= 0 {
					_ = histograms[i].RecordValue(min(max(1, took.Microseconds()), 120_000_000))
				}
				counts[i]++
				done.Add(1)
			}
		})
	}
	all.Wait()
	took := time.Since(begun)
	stopProgress()
	if err := errors.Join(faults...); err != nil {
		return result{}, fmt.Errorf("%s: %w", w.name, err)
	}
	sum := newHistogram()
	for _, h := range histograms {
		sum.Merge(h)
	}
	ms := func(quantile float64) float64 { return float64(sum.ValueAtQuantile(quantile)) / 1000 }
	return result{
		Operations: done.Load(),
		Seconds:    took.Seconds(),
		PerSecond:  float64(done.Load()) / took.Seconds(),
		P50:        ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), Max: float64(sum.Max()) / 1000,
		Spread: float64((slices.Max(counts)-slices.Min(counts))*int64(o.connections)) / float64(max(1, done.Load())),
	}, nil
}

// showProgress rewrites a line every second until the returned function is called.
func showProgress(to io.Writer, label string, done *atomic.Int64) (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		var before int64
		for n := 1; ; n++ {
			select {
			case <-quit:
				fmt.Fprintf(to, "\r\x1b[K")
				return
			case <-ticker.C:
				now := done.Load()
				fmt.Fprintf(to, "\r\x1b[K%s  %ds  %d/s", label, n, now-before)
				before = now
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
	}
}

// median returns the median of each figure over several rounds.
func median(rounds []result) result {
	of := func(figure func(result) float64) float64 {
		values := make([]float64, len(rounds))
		for i, r := range rounds {
			values[i] = figure(r)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return result{
		Operations: int64(of(func(r result) float64 { return float64(r.Operations) })),
		Seconds:    of(func(r result) float64 { return r.Seconds }),
		PerSecond:  of(func(r result) float64 { return r.PerSecond }),
		P50:        of(func(r result) float64 { return r.P50 }),
		P90:        of(func(r result) float64 { return r.P90 }),
		P99:        of(func(r result) float64 { return r.P99 }),
		P999:       of(func(r result) float64 { return r.P999 }),
		Max:        of(func(r result) float64 { return r.Max }),
		Spread:     of(func(r result) float64 { return r.Spread }),
	}
}
