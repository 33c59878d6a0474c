package robust_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"resource-lock-manager/client"
	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
)

// commandsUnderLocks runs commands under lockctl on three servers that are killed at
// random, one by one or all at once for longer than the TTL. No two commands of one
// resource may overlap, and none may run when another client could have its lock.
func commandsUnderLocks(t *testing.T, r *robust.Run) {
	runs, names := 20, 4
	if r.Long() {
		runs, names = 100, 10
	}
	servers := r.Servers(3, testdb.Postgres(t))
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.URL)
	}
	self, err := os.Executable()
	must(t, err)
	c := commands{
		lockctl: robust.BuildCommand(t, "lockctl"), self: self, urls: strings.Join(urls, ","),
		journal: filepath.Join(t.TempDir(), "journal"), names: names, long: r.Long(), exits: map[int]int{},
	}
	r.Begin()
	var working sync.WaitGroup
	ends := make(chan struct{})
	for i := range runs {
		random := rand.New(rand.NewPCG(r.Rand.Uint64(), uint64(i)))
		working.Go(func() {
			for {
				c.run(t, random)
				select {
				case <-ends:
					return
				default:
				}
			}
		})
	}
	for round := 0; r.Running(); round++ {
		r.Pause(between(r, 0, time.Second))
		if round%8 == 4 {
			r.Fault("all killed", robust.AllServers, func() {
				for _, s := range servers {
					s.Kill(t)
				}
				r.Pause(between(r, time.Second, 8*time.Second))
				for _, s := range servers {
					s.Start(t)
				}
			})
			continue
		}
		i := r.Rand.IntN(len(servers))
		r.Fault("killed", i, restart(t, servers[i], func() { r.Pause(between(r, 0, 2*time.Second)) }))
	}
	close(ends)
	working.Wait()
	c.judge(t, servers[0].URL)
	r.Finish()
}

// commands are runs of lockctl, and the journal that their commands write.
type commands struct {
	lockctl, self, urls string
	journal             string
	names               int
	long                bool // some commands take longer than the TTL

	mu    sync.Mutex
	exits map[int]int // runs by exit code
}

const commandTTL = 5 * time.Second

// run runs a command under a lock. The command ends soon, or must be stopped when its
// lock is lost. Every third one ignores SIGTERM.
func (c *commands) run(t *testing.T, random *rand.Rand) {
	lasts := time.Duration(random.Int64N(int64(400 * time.Millisecond)))
	if c.long && random.IntN(10) == 0 {
		lasts += 2 * commandTTL
	}
	cmd := exec.Command(c.lockctl, "run", "--ttl", commandTTL.String(), "--grace", "1s", "--wait", "2m",
		"--server-timeout", "1m",
		fmt.Sprintf("name %d", random.IntN(c.names)), "--", c.self)
	cmd.Env = append(os.Environ(), "LOCKCTL_URL="+c.urls, "ROBUST_JOURNAL="+c.journal, "ROBUST_LASTS="+lasts.String(),
		"ROBUST_STUBBORN="+strconv.FormatBool(random.IntN(3) == 0), "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	code := cmd.ProcessState.ExitCode()
	c.mu.Lock()
	c.exits[code]++
	c.mu.Unlock()
	switch code {
	case 0, 69, 75, 76: // success; no server answered; the wait timed out; the lock was lost
	default:
		t.Errorf("lockctl ended with %v: %s", err, &stderr)
	}
}

// command is the command that lockctl runs: this test program. Every 10 ms it writes to
// the journal that it runs.
func command(journal string) error {
	lasts, err := time.ParseDuration(os.Getenv("ROBUST_LASTS"))
	if err != nil {
		return err
	}
	stopped := make(chan os.Signal, 1)
	if os.Getenv("ROBUST_STUBBORN") == "true" {
		signal.Ignore(syscall.SIGTERM)
	} else {
		signal.Notify(stopped, syscall.SIGTERM)
	}
	f, err := os.OpenFile(journal, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		line := fmt.Sprintf("%d %s %s\n", time.Now().UnixNano(), os.Getenv("LOCK_FENCING_TOKEN"),
			os.Getenv("LOCK_RESOURCE_NAME"))
		if _, err := f.WriteString(line); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-stopped:
			return nil
		}
	}
	return nil
}

// stint is the period in which a command ran, according to the journal.
type stint struct {
	name        string
	token       int64
	first, last time.Time
}

// stints returns the stints of the journal in the order in which they started.
func (c *commands) stints(t *testing.T) (list []*stint) {
	t.Helper()
	f, err := os.Open(c.journal)
	must(t, err)
	defer f.Close()
	byToken := map[string]*stint{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		parts := strings.SplitN(lines.Text(), " ", 3)
		nanos, err := strconv.ParseInt(parts[0], 10, 64)
		must(t, err)
		token, err := strconv.ParseInt(parts[1], 10, 64)
		must(t, err)
		at, key := time.Unix(0, nanos), parts[1]+parts[2]
		s := byToken[key]
		if s == nil {
			s = &stint{name: parts[2], token: token, first: at, last: at}
			byToken[key] = s
			list = append(list, s)
		}
		s.first, s.last = minTime(s.first, at), maxTime(s.last, at)
	}
	must(t, lines.Err())
	slices.SortFunc(list, func(a, b *stint) int { return a.first.Compare(b.first) })
	return list
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// judge compares the stints with each other, and with the ends of their locks according
// to the service. Postgres uses the clock of this machine.
func (c *commands) judge(t *testing.T, url string) {
	t.Helper()
	stints := c.stints(t)
	latest := map[string]*stint{}
	for _, s := range stints {
		before := latest[s.name]
		switch {
		case before == nil:
		case !before.last.Before(s.first):
			t.Errorf("%s: the command with token %d ran until %v, the one with token %d from %v", s.name,
				before.token, before.last, s.token, s.first)
		case s.token <= before.token:
			t.Errorf("%s: token %d came after %d", s.name, s.token, before.token)
		}
		if before == nil || s.last.After(before.last) {
			latest[s.name] = s
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	reader, err := client.New(url, client.Options{})
	must(t, err)
	defer reader.CloseIdleConnections()
	type hold struct {
		name  string
		token int64
	}
	ends := map[hold]client.Event{}
	expired := 0
	for e, err := range reader.History(ctx, client.HistoryOptions{Events: []string{"released", "expired"}}) {
		must(t, err)
		ends[hold{e.Resource, e.FencingToken}] = e
		if e.Event == "expired" {
			expired++
		}
	}
	for _, s := range stints {
		if e, ended := ends[hold{s.name, s.token}]; !ended {
			t.Errorf("%s: the lock with token %d has not ended", s.name, s.token)
		} else if s.last.After(e.At) {
			t.Errorf("%s: the lock with token %d was %s at %v, its command ran until %v", s.name, s.token,
				e.Event, e.At, s.last)
		}
	}
	if c.exits[0] == 0 {
		t.Error("no command succeeded")
	}
	fmt.Fprintf(t.Output(), "%d commands ran under locks of %d names; lockctl ended with %v; %d locks expired\n",
		len(stints), c.names, c.exits, expired)
}

// runCommand runs this test program as the command of lockctl if the environment says so.
func runCommand() (isCommand bool, code int) {
	journal := os.Getenv("ROBUST_JOURNAL")
	if journal == "" {
		return false, 0
	}
	if err := command(journal); err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		fmt.Fprintln(os.Stderr, err)
		return true, 1
	}
	return true, 0
}
