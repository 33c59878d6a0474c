package main

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"time"
)

// pairCost is the cost of pairs in transactions and CPU time.
type pairCost struct {
	batch float64       // commands per transaction
	cpu   time.Duration // of lockd, per pair
}

// speed measures every workload in a closed loop, and pairs with different numbers of
// connections.
func (s *suite) speed(t *testing.T) string {
	type load struct {
		workload    string
		connections int
	}
	var loads []load
	for _, n := range s.pairs {
		loads = append(loads, load{"pairs", n})
	}
	for _, workload := range []string{"conflict", "status", "mixed"} {
		loads = append(loads, load{workload, s.many})
	}
	reports, costs := map[string]map[load]report{}, map[string]map[int]pairCost{}
	s.each(t, func(t *testing.T, kind string, on *server, db database) {
		reports[kind], costs[kind] = map[load]report{}, map[int]pairCost{}
		for _, l := range loads {
			reports[kind][l] = s.compare(t, kind, on, l.workload, options{connections: l.connections, floor: true})
			if l.workload == "pairs" {
				costs[kind][l.connections] = s.cost(t, on, db, l.connections)
			}
		}
		for _, n := range s.turns {
			reports[kind][load{"handoff", n}] = s.compare(t, kind, on, "handoff", options{connections: n})
		}
	})

	targets := newTable("workload", "connections", "database",
		"a second", "floor", "ratio", "p50 ms", "p99 ms", "p99.9 ms")
	growth := newTable("connections", "database", "pairs a second", "floor", "ratio", "p50 ms", "p99 ms",
		"commands a transaction", "CPU of lockd a pair")
	turns := newTable("connections", "database", "hand-overs a second", "p50 ms", "p99 ms", "spread")
	for _, l := range loads {
		for _, kind := range kinds {
			r := reports[kind.name][l]
			speed := []string{
				grouped(r.Server.PerSecond), grouped(r.Floor.PerSecond), fixed(r.Ratio),
				fixed(r.Server.P50), fixed(r.Server.P99),
			}
			if l.workload != "pairs" || slices.Contains(s.targets, l.connections) {
				first, last := []string{l.workload, grouped(l.connections), kind.name}, []string{fixed(r.Server.P999)}
				targets.row(slices.Concat(first, speed, last)...)
			}
			if l.workload == "pairs" {
				cost := costs[kind.name][l.connections]
				growth.row(slices.Concat([]string{grouped(l.connections), kind.name}, speed,
					[]string{fmt.Sprintf("%.1f", cost.batch), fmt.Sprintf("%d µs", cost.cpu.Microseconds())})...)
			}
		}
	}
	for _, n := range s.turns {
		for _, kind := range kinds {
			r := reports[kind.name][load{"handoff", n}].Server
			turns.row(grouped(n), kind.name, grouped(r.PerSecond), fixed(r.P50), fixed(r.P99),
				fmt.Sprintf("%.1f %%", 100*r.Spread))
		}
	}
	return "\n## Speed\n\n" + targets.String() +
		"\nTurns at one lock that all connections share:\n\n" + turns.String() +
		"\n## With more connections\n\n" + growth.String()
}

// cost measures the transactions and the CPU time of a round of pairs.
func (s *suite) cost(t *testing.T, on *server, db database, connections int) pairCost {
	w, err := find("pairs")
	must(t, err)
	transactions, cpu := db.transactions(t), on.CPU(t)
	r, err := measure(w, options{url: on.url, connections: connections, duration: s.length}, "", io.Discard)
	must(t, err)
	const commands = 2 // of a pair
	return pairCost{
		batch: float64(commands*r.Operations) / float64(max(1, db.transactions(t)-transactions)),
		cpu:   (on.CPU(t) - cpu) / time.Duration(r.Operations),
	}
}
