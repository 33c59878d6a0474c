// Lockbench puts load on a lock server through its public HTTP API and reports rates and
// latencies. It uses persistent connections, each with one request at a time.
//
// Without -rate the loop is closed: a connection sends its next request when the previous
// one is answered. With -rate the loop is open: operations fall due at a steady rate,
// whatever the server does, and their latency counts from then. With -floor each round
// measures the same HTTP stack without storage too. The ratio of the two is comparable on
// a noisy machine.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"
)

// options are the options of a run.
type options struct {
	url         *url.URL
	connections int
	duration    time.Duration
	rounds      int
	rate        float64
	held        int
	floor       bool
	logLevel    slog.Level  // of the floor
	until       func() bool // ends a round early; nil: never
	json        bool
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "lockbench:", err)
		}
		os.Exit(1)
	}
}

func run(args []string, out, progress io.Writer) error {
	var o options
	flags := flag.NewFlagSet("lockbench", flag.ContinueOnError)
	flags.SetOutput(progress)
	server := flags.String("url", "http://127.0.0.1:8000", "the server")
	name := flags.String("workload", "pairs", "the workload: "+strings.Join(names(), ", "))
	flags.IntVar(&o.connections, "connections", 64, "number of connections")
	flags.DurationVar(&o.duration, "duration", 10*time.Second, "length of a round")
	flags.IntVar(&o.rounds, "rounds", 3, "number of rounds; the median is reported")
	flags.Float64Var(&o.rate, "rate", 0, "operations a second of an open loop; 0: a closed loop")
	flags.IntVar(&o.held, "held", 100_000, "number of held locks of the workload hold")
	flags.BoolVar(&o.floor, "floor", false, "measure the HTTP stack without storage too, in turn")
	flags.TextVar(&o.logLevel, "log-level", slog.LevelInfo,
		"the server's LOG_LEVEL; the HTTP stack without storage logs at this level")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	isFloor := flags.Bool("serve-floor", false, "serve the HTTP stack without storage until standard input ends")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *isFloor {
		return serveFloor(o.logLevel)
	}
	var err error
	if o.url, err = url.Parse(*server); err != nil || o.url.Scheme != "http" || o.url.Host == "" {
		return fmt.Errorf("-url %q: must have the form http://127.0.0.1:8000", *server)
	}
	if o.connections < 1 || o.rounds < 1 || o.duration <= 0 || o.rate < 0 || o.held < 0 {
		return errors.New("-connections, -rounds and -duration must be positive, -rate and -held must not be negative")
	}
	w, err := find(*name)
	if err != nil {
		return err
	}
	if o.floor && w.name == "handoff" {
		return errors.New("-floor: without storage there is no queue, so the workload handoff has no floor")
	}
	r, err := compare(w, o, progress)
	if err != nil {
		return err
	}
	return r.print(out, o)
}

func names() []string {
	all := make([]string, len(workloads))
	for i, w := range workloads {
		all[i] = w.name
	}
	return all
}

func find(name string) (workload, error) {
	for _, w := range workloads {
		if w.name == name {
			return w, nil
		}
	}
	return workload{}, fmt.Errorf("-workload %q: must be one of %s", name, strings.Join(names(), ", "))
}

// report is the result of all rounds.
type report struct {
	Workload    string  `json:"workload"`
	Connections int     `json:"connections"`
	Rate        float64 `json:"rate,omitempty"`
	Held        int     `json:"held,omitempty"`
	Server      result  `json:"server"`
	Floor       *result `json:"floor,omitempty"`
	Ratio       float64 `json:"ratio,omitempty"` // the median over the rounds: the server's rate divided by the floor's
}

// compare measures the server, and with -floor the floor, in turn.
func compare(w workload, o options, progress io.Writer) (report, error) {
	r := report{Workload: w.name, Connections: o.connections, Rate: o.rate}
	if w.name == "hold" {
		r.Held = o.held
	}
	if err := prepare(w, o, progress); err != nil {
		return r, err
	}
	var (
		servers, floors, ratios []result
		floor                   = o
	)
	if o.floor {
		address, stop, err := startFloor(o.logLevel)
		if err != nil {
			return r, err
		}
		defer stop()
		floor.url = address
	}
	for n := range o.rounds {
		label := fmt.Sprintf("%s, %d connections, round %d of %d", w.name, o.connections, n+1, o.rounds)
		if o.floor {
			f, err := measure(w, floor, label+", floor", progress)
			if err != nil {
				return r, err
			}
			floors = append(floors, f)
		}
		s, err := measure(w, o, label, progress)
		if err != nil {
			return r, err
		}
		servers = append(servers, s)
		if o.floor {
			ratios = append(ratios, result{PerSecond: s.PerSecond / floors[n].PerSecond})
		}
	}
	r.Server = median(servers)
	if o.floor {
		f := median(floors)
		r.Floor, r.Ratio = &f, median(ratios).PerSecond
	}
	return r, nil
}

func prepare(w workload, o options, progress io.Writer) error {
	if w.prepare == nil {
		return nil
	}
	c, err := dial(o.url)
	if err != nil {
		return err
	}
	defer c.close()
	return w.prepare(c, o, progress)
}

func (r report) print(out io.Writer, o options) error {
	if o.json {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	line := func(name string, f result) {
		fmt.Fprintf(out, "%-7s %9.0f/s   p50 %.2f ms   p90 %.2f   p99 %.2f   p99.9 %.2f   max %.2f\n",
			name, f.PerSecond, f.P50, f.P90, f.P99, f.P999, f.Max)
	}
	line("server", r.Server)
	if r.Floor != nil {
		line("floor", *r.Floor)
		fmt.Fprintf(out, "ratio   %9.2f\n", r.Ratio)
	}
	if r.Workload == "handoff" {
		fmt.Fprintf(out, "spread  %9.1f %% between the connections\n", 100*r.Server.Spread)
	}
	return nil
}
