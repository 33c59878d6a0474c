package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"resource-lock-manager/client"
)

const (
	exitMaxHold = 124 // like timeout(1)
	minTTL      = 5 * time.Second
	// pollStopped is the interval of the checks whether the processes of a stopped
	// command have ended.
	pollStopped = 20 * time.Millisecond
)

// runFlags are the flags of run.
type runFlags struct {
	acquireFlags
	grace   time.Duration
	signal  string
	onLost  string
	maxHold time.Duration
	pgroup  string
	shell   string
}

func newRun(p *program) *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use:   "run [flags] NAME -- COMMAND [ARG...]",
		Short: "Run a command under a lock",
		Long: `Run a command under a lock.

The lock is renewed while the command runs. It is released when the command ends, even if processes
that the command has started still run. The command is executed without a shell; -c STRING runs a
string by the shell.

If the lock is lost, the command is stopped: it gets --signal, and KILL after --grace. If no server
answers, the command is stopped so early that it has ended before another process can get the lock.
lockctl passes the signals that it receives on to the command. Without a terminal, as in cron, CI
and systemd, the command has a process group of its own, and all its processes are signaled. With a
terminal it stays in the group of lockctl, and the terminal sends Ctrl-C and Ctrl-Z to both. While a
job is stopped by Ctrl-Z, its lock is not renewed.

lockctl detects a force-release at the next renewal. Until the command has stopped, it may run at
the same time as the next holder. On macOS with a terminal, and on Windows, processes that the
command has started are not stopped.

The environment of the command has LOCK_RESOURCE_NAME, LOCK_FENCING_TOKEN, LOCK_PROCESS_ID and
LOCKCTL_URL.

The exit code is that of the command, or 128+N if signal N has ended the command. Otherwise:
  64       wrong usage
  69       no server answers
  70       any other failure
  75       the lock was not acquired: it is held, or the wait timed out (see -E)
  76       the lock was lost while the command ran
  77, 78   not permitted; invalid setting
  124      the command was stopped because of --max-hold
  126, 127 the command cannot be executed; cannot be found
  128+N    lockctl received signal N while it waited

In all these cases except 76 and 124 the command was not run.`,
		Example: `  lockctl run deploy/web -- echo deploying
  lockctl run -n -E 0 nightly-backup -- echo "only one host runs this"
  lockctl run --wait 5m --reason "release 1.4" deploy/web -c 'echo "token $LOCK_FENCING_TOKEN"'`,
		ValidArgsFunction: p.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, command, err := f.split(cmd, args)
			if err != nil {
				return err
			}
			return f.run(cmd.Context(), p, name, command)
		},
	}
	f.define(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&f.shell, "command", "c", "", "run `STRING` by /bin/sh")
	flags.StringVar(&f.reason, "reason", "",
		"`TEXT` that is shown to other clients that request the resource (default: the name of the command)")
	flags.StringVar(&f.processID, "process-id", "", "process ID of the holder (default HOST:PID:RANDOM)")
	durationVar(flags, &f.grace, "grace", 10*time.Second,
		"time to stop before the command is killed; at most a third of --ttl if no server answers")
	flags.StringVar(&f.signal, "signal", defaultSignal, "`SIGNAL` that stops the command")
	flags.StringVar(&f.onLost, "on-lost", "stop", "what to do when the lock is lost: `stop|warn`")
	durationVar(flags, &f.maxHold, "max-hold", 0, "stop the command after this time (default: never)")
	flags.StringVar(&f.pgroup, "pgroup", "auto",
		"process group of the command: `auto|new|same`; auto is new without a terminal")
	flags.BoolVar(&f.json, "json", false, "report on stderr in JSON objects, one per line")
	return cmd
}

// split splits the arguments into the name and the command.
func (f *runFlags) split(cmd *cobra.Command, args []string) (string, []string, error) {
	dash := cmd.ArgsLenAtDash()
	if dash == 0 && len(args) > 1 && args[1] == "--" { // lockctl run -- -NAME -- COMMAND
		args, dash = append([]string{args[0]}, args[2:]...), 1
	}
	hasShell := cmd.Flags().Changed("command")
	switch {
	case len(args) == 0 || args[0] == "":
		return "", nil, usagef("run: want NAME -- COMMAND")
	case !utf8.ValidString(args[0]): // JSON would change the name
		return "", nil, usagef("run: the name %q is not UTF-8", args[0])
	case hasShell && len(args) > 1:
		return "", nil, usagef("run: unexpected argument %q beside -c", args[1])
	case hasShell:
		return args[0], shell(f.shell), nil
	case len(args) == 1:
		return "", nil, usagef("run: the command is missing: want NAME -- COMMAND")
	case dash != 1:
		return "", nil, usagef("run: unexpected argument %q: want -- between NAME and COMMAND", args[1])
	}
	return args[0], args[1:], nil
}

func (f *runFlags) check() (os.Signal, error) {
	if err := f.acquireFlags.check(); err != nil {
		return nil, err
	}
	stop, err := signalByName(f.signal)
	switch {
	case err != nil:
		return nil, &exitError{exitUsage, err}
	case f.ttl < minTTL:
		return nil, usagef("--ttl: got %v, want at least %v: a command could not be stopped in time", f.ttl, minTTL)
	case f.onLost != "stop" && f.onLost != "warn":
		return nil, usagef("--on-lost: got %q, want stop or warn", f.onLost)
	case f.pgroup == "new" && !hasProcessGroups:
		return nil, usagef("--pgroup: this system has no process groups, want auto or same")
	case f.pgroup != "auto" && f.pgroup != "new" && f.pgroup != "same":
		return nil, usagef("--pgroup: got %q, want auto, new or same", f.pgroup)
	}
	return stop, nil
}

// run acquires the lock, runs the command and releases the lock.
func (f *runFlags) run(ctx context.Context, p *program, name string, command []string) error {
	stop, err := f.check()
	if err != nil {
		return err
	}
	r := f.reporter(p, name, f.json)
	ctx, signals := watchSignals(ctx)
	err = f.execute(ctx, p, r, signals, name, command, stop)
	signals.stop()
	exit, is := errors.AsType[*exitError](err)
	if f.json && !f.quiet && err != nil && (!is || exit.cause != nil) {
		code := exitCode(err)
		r.report(event{Event: "failed", Error: err.Error(), ExitCode: code}, "")
		err = &exitError{code, nil}
	}
	r.close()
	signals.raise(err)
	return err
}

// execute does the work of run. An error without a cause has been reported.
func (f *runFlags) execute(
	ctx context.Context, p *program, r *reporter, signals *signals, name string, command []string, stop os.Signal,
) error {
	path, err := exec.LookPath(command[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return findFault(command[0], err)
	}
	if f.processID == "" {
		f.processID = client.NewOwner()
	}
	if f.reason == "" {
		f.reason = commandName(command)
	}
	c, err := p.client(client.Options{Observer: r.observer()})
	if err != nil {
		return err
	}
	ignoreTerminalOutput()
	options := f.options()
	if f.onLost == "stop" {
		options.Grace = min(f.grace, f.ttl/3)
	}
	r.grace = options.Grace
	l, err := f.acquire(ctx, c, r, options)
	r.flush()                                    // before the command writes to the same stderr
	if number := signals.caught(); number != 0 { // the signal may race with the grant
		if err == nil {
			_ = l.Unlock(ctx)
		}
		e := event{Event: "interrupted", ExitCode: signalExit + number}
		r.detail(e, "interrupted: the command was not run")
		return &exitError{signalExit + number, nil}
	}
	if err != nil {
		return err
	}
	if lost, is := errors.AsType[*client.LostError](l.Err()); is { // lockctl was stopped after the grant
		_ = l.Unlock(ctx)
		r.report(lostEvent(lost), "%v; the command was not run", lost)
		return &exitError{exitLost, nil}
	}
	cmd := &exec.Cmd{Path: path, Args: command, Stdin: p.in, Stdout: p.out, Stderr: p.err}
	cmd.Env = append(append([]string{}, p.environ...),
		"LOCK_RESOURCE_NAME="+name,
		"LOCK_FENCING_TOKEN="+strconv.FormatInt(l.FencingToken(), 10),
		"LOCK_PROCESS_ID="+l.Owner(),
		nameURL+"="+p.settings.urls,
	)
	terminal := hasTerminal()
	newGroup := f.pgroup == "new" || f.pgroup == "auto" && !terminal
	signals.catch(passedSignals(newGroup, terminal))
	child, err := start(cmd, newGroup, terminal)
	if err != nil {
		_ = l.Unlock(ctx)
		if _, is := errors.AsType[*exitError](err); is {
			return err
		}
		return &exitError{exitNotExecutable, fmt.Errorf("cannot execute %s: %w", command[0], err)}
	}
	run := &execution{
		runFlags: f, r: r, l: l, child: child, stopSignal: stop, interrupts: make(chan struct{}, 1),
	}
	signals.pass(run.signaled)
	code := run.wait()
	signals.pass(nil) // from now on a signal ends the release early
	return run.finish(ctx, code)
}

// execution is a command that runs under a lock.
type execution struct {
	*runFlags
	r          *reporter
	l          *client.Lock
	child      *child
	stopSignal os.Signal
	interrupts chan struct{} // receives Ctrl-C; buffered

	lost    *client.LostError // nil: no loss was detected
	stopped bool              // the command was signaled to stop
	killed  bool
	killAt  func() time.Time // when a stopped command is killed
	code    int              // the exit code of a stopped command; 0: its own
}

// signaled handles a signal that lockctl has received.
func (e *execution) signaled(s os.Signal, early bool) {
	e.child.pass(s, early)
	if s == os.Interrupt {
		select {
		case e.interrupts <- struct{}{}:
		default:
		}
	}
}

// wait waits for the end of the command and returns its exit code. If the command was
// signaled to stop, it also waits for all other processes that were signaled.
func (e *execution) wait() int {
	lost, maxHold := e.l.Done(), (<-chan time.Time)(nil)
	if e.maxHold > 0 {
		timer := time.NewTimer(e.maxHold)
		defer timer.Stop()
		maxHold = timer.C
	}
	ended := e.child.done
	var poll <-chan time.Time
	for {
		select {
		case <-ended:
			if !e.stopped {
				return e.child.exitCode()
			}
			ended = nil // wait for the other processes
		case <-lost:
			lost = nil
			e.lose()
		case <-maxHold:
			if e.stopped { // the lock was lost before
				continue
			}
			e.r.report(event{Event: "max_hold"}, "stopping the command: --max-hold of %v has passed", e.maxHold)
			e.code = exitMaxHold
			e.stop(func() time.Time { return time.Time{} }, e.grace)
		case <-e.interrupts:
			if e.stopped { // a second Ctrl-C, or one after the loss
				e.kill()
			}
		case <-poll:
			if !time.Now().Before(e.killAt()) {
				e.kill()
			}
		}
		if e.stopped && !e.child.alive() {
			if e.code != 0 {
				return e.code
			}
			return e.child.exitCode()
		}
		if e.stopped && poll == nil {
			ticker := time.NewTicker(pollStopped)
			defer ticker.Stop()
			poll = ticker.C
		}
	}
}

// lose handles the end of the lock while the command runs.
func (e *execution) lose() {
	errors.As(e.l.Err(), &e.lost)
	if e.onLost == "warn" {
		e.r.report(lostEvent(e.lost), "%v; the command continues", e.lost)
		return
	}
	e.r.report(lostEvent(e.lost), "%v; stopping the command", e.lost)
	e.code = exitLost
	deadline := func() time.Time { return time.Time{} }
	if e.lost.Why == client.LossUnreachable {
		deadline = e.l.Deadline
	}
	e.stop(deadline, e.grace)
}

func lostEvent(lost *client.LostError) event {
	return event{
		Event: "lost", Why: string(lost.Why), By: lost.By, Reason: lost.Reason,
		FencingToken: lost.FencingToken,
	}
}

// stop signals the command to stop. The command is killed after grace, or at the deadline
// if that is earlier and not zero. The deadline is read repeatedly, because the machine
// may be suspended meanwhile.
func (e *execution) stop(deadline func() time.Time, grace time.Duration) {
	end := time.Now().Add(grace)
	killAt := func() time.Time {
		if d := deadline(); !d.IsZero() && d.Before(end) {
			return d
		}
		return end
	}
	if e.stopped && e.killAt().Before(end) {
		killAt = e.killAt // the earlier time counts
	}
	e.killAt = killAt
	if !e.stopped {
		e.stopped = true
		e.child.stop(e.stopSignal)
	}
}

// kill kills the command. It is called repeatedly, for processes that were started
// meanwhile.
func (e *execution) kill() {
	if !e.killed {
		e.killed = true
		e.r.detail(event{Event: "killed"}, "killing the command")
	}
	e.child.kill()
}

// finish releases the lock and returns the result.
func (e *execution) finish(ctx context.Context, code int) error {
	err := e.l.Unlock(ctx)
	lost, isLost := errors.AsType[*client.LostError](err)
	switch {
	case isLost:
		if e.lost == nil { // the command ended before the loss was detected
			e.r.report(lostEvent(lost), "%v", lost)
		}
		if e.onLost == "stop" || code == 0 {
			code = exitLost
		}
	case err != nil:
		e.r.report(event{Event: "release_failed", Error: err.Error()},
			"cannot release %s, which expires within %v: %v", e.l.Name(), e.ttl, err)
	}
	if code == 0 {
		return nil
	}
	return &exitError{code, nil}
}
