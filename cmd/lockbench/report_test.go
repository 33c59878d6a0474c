package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
)

var (
	long   = flag.Bool("lockbench.long", false, "measure with full sizes, and write the report")
	length = flag.Duration("lockbench.length", 5*time.Second, "length of a round")
	rounds = flag.Int("lockbench.rounds", 5, "number of rounds; the median is reported")
)

// sizes are the sizes of the measurements.
type sizes struct {
	length, idle time.Duration
	rounds       int
	pairs        []int // connections of the workload pairs
	targets      []int // the connections that the first table shows
	few, many    int   // connections of all other workloads, and of pairs
	turns        []int // connections of the workload handoff
	held         []int
	overNetwork  []int // connections of pairs over a network
	expiring     int
	expireAfter  time.Duration // the locks that expire are acquired within this time
	settings     []string
}

// newSizes returns the full sizes with -lockbench.long. Without it they are small: make
// test runs every section, but its figures mean nothing.
func newSizes() sizes {
	if !*long {
		return sizes{
			length: 20 * time.Millisecond, idle: 20 * time.Millisecond, rounds: 1,
			pairs: []int{1, 3}, targets: []int{1, 3}, few: 3, many: 3,
			turns: []int{2, 5}, held: []int{0, 50}, overNetwork: []int{3},
			expiring: 250, expireAfter: 2 * time.Second, settings: []string{"SWEEP_INTERVAL=100ms"},
		}
	}
	return sizes{
		length: *length, idle: 10 * time.Second, rounds: *rounds,
		pairs: []int{1, 4, 16, 64, 256, 1024}, targets: []int{1, 64, 256}, few: 16, many: 64,
		turns: []int{2, 16, 256, 2048}, held: []int{0, 100_000, 1_000_000}, overNetwork: []int{1, 16, 64, 256},
		expiring: 100_000, expireAfter: 45 * time.Second,
	}
}

// suite is one run of all sections.
type suite struct {
	sizes
	program  string
	cluster  *testdb.Cluster
	capacity map[string]float64 // pairs a second in a closed loop, see key
}

// sections are the sections of the report, in their order. Later ones use measurements of
// earlier ones. The one that fills the disk is last.
var sections = []struct {
	name string
	run  func(s *suite, t *testing.T) string
}{
	{"machine", (*suite).machine},
	{"speed", (*suite).speed},
	{"network", (*suite).network},
	{"steady", (*suite).steady},
	{"sweep", (*suite).sweep},
	{"idle", (*suite).idleServer},
	{"held", (*suite).holding},
}

// TestReport measures and writes the tables of docs/benchmarks.md with -lockbench.long.
// Otherwise it tests that the measurements work. With -run TestReport/speed it measures
// and prints only that section.
func TestReport(t *testing.T) {
	s := &suite{sizes: newSizes(), program: robust.Build(t), capacity: map[string]float64{}}
	var err error
	if s.cluster, err = testdb.NewCluster(testdb.Durable...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, s.cluster.Close()) })
	begun, complete := time.Now(), true
	var text strings.Builder
	for _, section := range sections {
		part := ""
		t.Run(section.name, func(t *testing.T) {
			part = section.run(s, t)
			fmt.Fprintf(t.Output(), "\n%s\n", part)
		})
		complete = complete && part != ""
		text.WriteString(part)
	}
	if t.Failed() || !complete {
		return
	}
	fmt.Fprintf(&text, "\nThe run took %v.\n", time.Since(begun).Round(time.Second))
	const path = "../../docs/benchmarks.md"
	page, err := os.ReadFile(path)
	must(t, err)
	written, err := replaceGenerated(string(page), text.String())
	must(t, err)
	if *long {
		must(t, os.WriteFile(path, []byte(written), 0o644))
	}
}

// replaceGenerated replaces the generated part of the page.
func replaceGenerated(page, text string) (string, error) {
	const begin, end = "<!-- make bench writes from here -->\n", "<!-- to here -->\n"
	before, rest, begun := strings.Cut(page, begin)
	_, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		return "", fmt.Errorf("the page must contain the lines %q and %q", begin, end)
	}
	return before + begin + text + "\n" + end + after, nil
}

func TestGeneratedPartIsReplaced(t *testing.T) {
	const page = "above\n<!-- make bench writes from here -->\nold\n<!-- to here -->\nbelow\n"
	got, err := replaceGenerated(page, "\nnew\n")
	const want = "above\n<!-- make bench writes from here -->\n\nnew\n\n<!-- to here -->\nbelow\n"
	if err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := replaceGenerated("above\n", "new"); err == nil {
		t.Error("a page without the marks was accepted")
	}
}

func TestTable(t *testing.T) {
	table := newTable("name", "number")
	table.row("a", grouped(1234567))
	table.row("b", fixed(0.5))
	const want = "| name | number |\n| --- | ---: |\n| a | 1,234,567 |\n| b | 0.50 |\n"
	if got := table.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// table is a table in Markdown.
type table struct{ rows [][]string }

func newTable(columns ...string) *table { return &table{rows: [][]string{columns}} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// String returns the table. Columns of numbers are aligned to the right.
func (t *table) String() string {
	ruler := slices.Repeat([]string{"---:"}, len(t.rows[0]))
	for _, row := range t.rows[1:] {
		for i, cell := range row {
			if cell[0] < '0' || cell[0] > '9' {
				ruler[i] = "---"
			}
		}
	}
	var text strings.Builder
	for _, row := range slices.Insert(slices.Clone(t.rows), 1, ruler) {
		fmt.Fprintf(&text, "| %s |\n", strings.Join(row, " | "))
	}
	return text.String()
}

// grouped returns a whole number with a comma before every three digits.
func grouped[N int | int64 | float64](n N) string {
	text := fmt.Sprintf("%.0f", float64(n))
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func fixed(x float64) string { return fmt.Sprintf("%.2f", x) }

func megabytes(bytes int64) string { return fmt.Sprintf("%.0f MB", float64(bytes)/1e6) }
