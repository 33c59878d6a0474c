package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver whose version is reported
)

// machine reports the machine, the versions and the settings of the measurement.
func (s *suite) machine(t *testing.T) string {
	postgres := openPostgres(t, s.cluster.URL("postgres"))
	sqlite, err := sql.Open("sqlite3", ":memory:")
	must(t, err)
	defer sqlite.Close()
	query := func(db *sql.DB, statement string) (value string) {
		must(t, db.QueryRow(statement).Scan(&value))
		return value
	}
	var settings []string
	for _, name := range []string{
		"fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers", "max_connections",
	} {
		settings = append(settings, name+"="+query(postgres, "SHOW "+name))
	}
	filesystem := strings.Fields(output(t, "df", "--output=fstype,source", os.TempDir()))
	commit := output(t, "git", "rev-parse", "--short", "HEAD")
	if output(t, "git", "status", "--porcelain", "--untracked-files=no") != "" {
		commit += ", with uncommitted changes"
	}
	table := newTable("", "")
	for _, row := range [][2]string{
		{"measured", time.Now().UTC().Format(time.DateOnly) + ", commit " + commit},
		{"processor", fmt.Sprintf("%s, %d cores", field(t, "cpuinfo", "model name"), runtime.NumCPU())},
		{"memory", fmt.Sprintf("%.0f GB", memory(t))},
		{"kernel", "Linux " + output(t, "cat", "/proc/sys/kernel/osrelease")},
		{"disk", fmt.Sprintf("%s on %s: a write and sync (fdatasync) of 4 KiB takes %.2f ms, the median of %d",
			filesystem[len(filesystem)-2], filepath.Base(filesystem[len(filesystem)-1]), medianSync(t), syncs)},
		{"versions", fmt.Sprintf("Go %s, SQLite %s, Postgres %s", strings.TrimPrefix(runtime.Version(), "go"),
			query(sqlite, "SELECT sqlite_version()"), query(postgres, "SHOW server_version"))},
		{"lockd", "every setting as in `.env.example`; its log is discarded"},
		{"SQLite", "a new file; WAL, synchronous=FULL"},
		{"Postgres", "a new database, on the same machine; " + strings.Join(settings, ", ")},
		{"rounds", fmt.Sprintf("%d of %v; the tables show the medians", s.rounds, s.length)},
	} {
		table.row(row[:]...)
	}
	return "\n## Machine\n\n" + table.String()
}

// output returns the output of a command.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	must(t, err)
	return strings.TrimSpace(string(out))
}

// memory returns the memory of the machine in gigabytes.
func memory(t *testing.T) float64 {
	kilobytes, err := strconv.ParseFloat(strings.TrimSuffix(field(t, "meminfo", "MemTotal"), " kB"), 64)
	must(t, err)
	return kilobytes * 1024 / 1e9
}

// field returns a field of a file in /proc.
func field(t *testing.T, file, name string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + file)
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

const syncs = 500

// medianSync returns how long a write and sync of a page takes on the disk of the
// databases, in milliseconds. A durable answer takes at least that long.
func medianSync(t *testing.T) float64 {
	file, err := os.Create(filepath.Join(t.TempDir(), "pages"))
	must(t, err)
	defer file.Close()
	page := bytes.Repeat([]byte("lockbench"), 4096)[:4096]
	sync := func(n int64) float64 {
		begun := time.Now()
		_, err := file.WriteAt(page, n*int64(len(page)))
		must(t, err)
		must(t, syscall.Fdatasync(int(file.Fd())))
		return time.Since(begun).Seconds() * 1000
	}
	took := make([]float64, syncs)
	for n := range took { // a checkpointed log is overwritten, so the second time counts
		sync(int64(n))
	}
	for n := range took {
		took[n] = sync(int64(n))
	}
	slices.Sort(took)
	return took[syncs/2]
}
