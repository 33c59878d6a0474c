package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"time"

	"resource-lock-manager/internal/api"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// ballast is as large as that of lockd, so that the garbage collector runs as often.
const ballast = 32 << 20

// noDatabase has the length of a database's id, so that the answers have the length of
// lockd's.
const noDatabase = "00000000000000000000000000000000"

// serveFloor serves the HTTP API of lockd without storage, with a log of the same level.
// It shows the cost of HTTP alone on this machine. It prints its URL and ends when its
// standard input ends.
func serveFloor(level slog.Level) error {
	defer runtime.KeepAlive(make([]byte, ballast))
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	service := service.New(noStore{}, service.Config{
		Limits:     lock.Limits{MaxTTL: 876600 * time.Hour, MaxWait: time.Minute},
		MaxWaiters: 1, MaxQueue: 1, Recheck: time.Hour,
	}, log)
	server := api.NewServer(api.New(service, noDatabase, func(context.Context) error { return nil }, log), log)
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		_ = server.Close()
	}()
	fmt.Printf("http://%s\n", listener.Addr())
	_ = server.Serve(listener)
	return nil
}

// startFloor runs serveFloor in a process of its own, like the server. It discards the
// log.
func startFloor(level slog.Level) (server *url.URL, stop func(), err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(program, "-serve-floor", "-log-level="+level.String()) //nolint:gosec // it is this program
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err == nil {
		server, err = url.Parse(line[:max(0, len(line)-1)])
	}
	if err != nil {
		stop()
		return nil, nil, fmt.Errorf("the HTTP stack without storage did not start: %w", err)
	}
	return server, stop, nil
}

// noStore accepts every command, except an acquire of the lock that is always held.
type noStore struct{ service.Store }

func (noStore) Execute(_ context.Context, c lock.Command) (lock.Outcome, error) {
	now := time.Now()
	before := []lock.Resource{}
	for _, name := range c.Needs().Resources {
		before = append(before, stateOf(name, c, now))
	}
	return c.Decide(now, before)
}

func (s noStore) ExecuteWithin(ctx context.Context, c lock.Command, _ time.Duration) (lock.Outcome, error) {
	return s.Execute(ctx, c)
}

// stateOf returns a state in which the command succeeds.
func stateOf(name string, c lock.Command, now time.Time) lock.Resource {
	r := lock.Resource{ID: 1, Name: name}
	switch c := c.(type) {
	case lock.Acquire:
		if name == heldName {
			r.Holds = heldBy("holder", now)
		}
	case lock.Release:
		r.Holds = heldBy(c.ProcessID, now)
	}
	return r
}

func heldBy(process string, now time.Time) []lock.Hold {
	return []lock.Hold{{
		ProcessID: process, Token: now.UnixMicro(), LockedAt: now, ExpiresAt: now.Add(time.Hour),
		RequestID: "lockbench",
	}}
}

func (noStore) Find(_ context.Context, name string) (service.Snapshot, error) {
	now := time.Now()
	return service.Snapshot{Resource: lock.Resource{ID: 1, Name: name, Holds: heldBy("holder", now)}, At: now}, nil
}
