package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"resource-lock-manager/client"
)

// acquireFlags are the common flags of run and acquire.
type acquireFlags struct {
	wait      waitFlag
	noWait    bool
	ttl       time.Duration
	minHold   time.Duration
	conflict  int
	reason    string
	metadata  map[string]string
	processID string
	quiet     bool
	verbose   bool
	json      bool
}

// waitFlag is a maximum wait. It is unlimited if it is not set.
type waitFlag struct {
	set bool
	d   time.Duration
}

func (w *waitFlag) Set(text string) error {
	w.set = true
	return (*duration)(&w.d).Set(text)
}

func (w *waitFlag) String() string {
	if !w.set {
		return ""
	}
	return (*duration)(&w.d).String()
}

func (*waitFlag) Type() string { return "duration" }

func (f *acquireFlags) define(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.VarP(&f.wait, "wait", "w", "maximum time to wait in the queue (default: no limit)")
	flags.BoolVarP(&f.noWait, "no-wait", "n", false, "do not wait: the same as --wait 0s")
	durationVar(flags, &f.ttl, "ttl", time.Minute, "time after which the lock expires if it is not renewed")
	durationVar(flags, &f.minHold, "min-hold", 0,
		"minimum time for which the resource stays locked, even if the lock is released earlier")
	flags.IntVarP(&f.conflict, "conflict-exit-code", "E", exitNotAcquired,
		"exit `CODE` if another process holds the lock; 0 skips the work quietly")
	flags.StringToStringVar(&f.metadata, "metadata", nil, "`KEY=VALUE` to show with the lock; may be repeated")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "do not report on stderr")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "report more on stderr")
	cmd.MarkFlagsMutuallyExclusive("wait", "no-wait")
	cmd.MarkFlagsMutuallyExclusive("quiet", "verbose")
}

func (f *acquireFlags) check() error {
	switch {
	case f.ttl <= 0:
		return usagef("--ttl: want more than 0s")
	case f.minHold > f.ttl:
		return usagef("--min-hold: got %s, want at most --ttl, which is %s",
			shortDuration(f.minHold), shortDuration(f.ttl))
	case f.conflict < 0 || f.conflict > 255:
		return usagef("--conflict-exit-code: got %d, want 0 to 255", f.conflict)
	}
	return nil
}

func (f *acquireFlags) reporter(p *program, resource string, json bool) *reporter {
	r := &reporter{resource: resource, out: newPrinter(p.err), quiet: f.quiet, verbose: f.verbose, json: json}
	if isTerminal(p.err) {
		r.terminal = p.err.(*os.File)
	}
	return r
}

func (f *acquireFlags) options() client.LockOptions {
	o := client.LockOptions{TTL: f.ttl, Owner: f.processID, Reason: f.reason, MinHold: f.minHold}
	if len(f.metadata) > 0 {
		o.Metadata = f.metadata
	}
	return o
}

// acquire acquires the lock according to the flags. While it waits, it reports the
// holder. Errors other than usage errors and signals have been reported.
func (f *acquireFlags) acquire(
	signaled context.Context, c *client.Client, r *reporter, o client.LockOptions,
) (*client.Lock, error) {
	get, ctx := c.Lock, signaled
	if f.noWait || f.wait.set && f.wait.d == 0 {
		get = c.TryLock
	} else {
		if f.wait.set {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, f.wait.d)
			defer cancel()
		}
		waiting, stop := context.WithCancel(ctx)
		shown := make(chan struct{})
		go func() {
			defer close(shown)
			if !r.quiet {
				showWaiting(waiting, c, r, o.Owner)
			}
		}()
		defer func() {
			stop()
			<-shown
			r.done()
		}()
	}
	l, err := get(ctx, r.resource, o)
	if err == nil {
		return l, nil
	}
	code := exitCode(err)
	switch {
	case signaled.Err() != nil: // the caller reports the signal
		return nil, err
	case errors.Is(err, client.ErrHeld):
		code = f.conflict
	case errors.Is(err, context.DeadlineExceeded): // the wait timed out without an answer of a server
		code = exitUnavailable
	case code == exitUsage:
		return nil, err
	}
	return nil, r.notAcquired(code, err)
}

// notAcquired reports why the lock was not acquired, and returns the error with the code.
func (r *reporter) notAcquired(code int, err error) error {
	r.done()
	e := event{Event: "not_acquired", Error: err.Error(), ExitCode: code}
	if held, is := errors.AsType[*client.HeldError](err); is {
		e.Holder, e.Waiters = holderOf(held.Holder), held.Waiters
	}
	if code == 0 { // -E 0: the work is skipped quietly
		r.detail(e, "not acquired: %v", err)
	} else {
		r.report(e, "not acquired: %v", err)
	}
	return &exitError{code, nil}
}

func newAcquire(p *program) *cobra.Command {
	f := &acquireFlags{}
	cmd := &cobra.Command{
		Use:   "acquire NAME",
		Short: "Acquire a lock and print its fencing token",
		Long: `Acquire a lock and print its fencing token.

The lock remains after lockctl has ended, until it is released or its TTL has passed. It is not
renewed. To run a command under a lock, use "lockctl run".`,
		Example: `  token=$(lockctl acquire deploy/web --ttl 10m --reason "release 1.4")
  lockctl renew deploy/web "$token" --ttl 10m
  lockctl release deploy/web "$token"`,
		Args:              arguments(1, 1),
		ValidArgsFunction: p.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if f.processID == "" {
				f.processID = defaultProcessID(p)
			}
			return f.print(cmd.Context(), p, args[0])
		},
	}
	f.define(cmd)
	cmd.Flags().StringVar(&f.reason, "reason", "", "`TEXT` that is shown to other clients that request the resource")
	cmd.Flags().StringVar(&f.processID, "process-id", "",
		"process ID of the holder (default LOCKCTL_PROCESS_ID, else USER@HOST)")
	cmd.Flags().BoolVar(&f.json, "json", false, "print the lock as a JSON object")
	return cmd
}

// print acquires a lock and prints its token. The lock remains when lockctl ends.
func (f *acquireFlags) print(ctx context.Context, p *program, resource string) error {
	r := f.reporter(p, resource, false)
	ctx, signals := watchSignals(ctx)
	err := f.printToken(ctx, p, r, signals)
	signals.stop()
	r.close()
	signals.raise(err)
	return err
}

func (f *acquireFlags) printToken(ctx context.Context, p *program, r *reporter, signals *signals) error {
	o := r.observer()
	var waited time.Duration
	report := o.Acquired
	o.Acquired = func(l *client.Lock, d time.Duration) {
		waited = d
		report(l, d)
	}
	c, err := p.client(client.Options{Observer: o})
	if err != nil {
		return err
	}
	options := f.options()
	options.NoRenew = true
	l, err := f.acquire(ctx, c, r, options)
	if number := signals.caught(); number != 0 {
		if err == nil {
			_ = l.Unlock(ctx)
		}
		return &exitError{signalExit + number, nil}
	}
	if err != nil {
		return err
	}
	defer l.Abandon()
	if !f.json {
		err = p.printf("%d\n", l.FencingToken())
	} else {
		err = json.NewEncoder(p.out).Encode(struct {
			ResourceName     string  `json:"resource_name"`
			ProcessID        string  `json:"process_id"`
			FencingToken     int64   `json:"fencing_token"`
			ExpiresInSeconds float64 `json:"expires_in_seconds"`
			WaitedSeconds    float64 `json:"waited_seconds"`
		}{l.Name(), l.Owner(), l.FencingToken(), f.ttl.Seconds(), waited.Seconds()})
	}
	if err != nil { // the caller did not get the token
		_ = l.Unlock(ctx)
	}
	return err
}

// commandName returns the default reason: the name of the command, without its arguments,
// which may contain secrets. A file name may be longer than a reason and may contain
// characters that a reason must not contain.
func commandName(command []string) string {
	name := command[0]
	if i := strings.LastIndexAny(name, `/\`); i >= 0 && i < len(name)-1 {
		name = name[i+1:]
	}
	return truncate(escape(name), 200)
}
