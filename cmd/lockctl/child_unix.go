//go:build unix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	defaultSignal    = "TERM"
	hasProcessGroups = true
)

// endingSignals are the signals from other processes that end a program by default.
var endingSignals = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE,
}

// harmless reports whether a signal is caught only so that it does not end lockctl.
// SIGPIPE is harmless: if the reader of stderr has ended, the command must keep its lock.
func harmless(s os.Signal) bool { return s == syscall.SIGPIPE }

// signalByName returns the signal with a name such as TERM or SIGTERM.
func signalByName(name string) (os.Signal, error) {
	upper := strings.ToUpper(name)
	if !strings.HasPrefix(upper, "SIG") {
		upper = "SIG" + upper
	}
	if n := unix.SignalNum(upper); n != 0 {
		return n, nil
	}
	return nil, fmt.Errorf("--signal: unknown signal %q, want a name such as TERM, INT or HUP", name)
}

// hasTerminal reports whether the process has a controlling terminal. Its streams do not
// matter.
func hasTerminal() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	return tty.Close() == nil
}

// shell returns the command line that runs a string by the shell.
func shell(text string) []string { return []string{"/bin/sh", "-c", text} }

// child is the command that runs under the lock.
//
// Without a terminal the command has a process group of its own, and every signal goes to
// the whole group. With a terminal it stays in the group of lockctl, so that it can use
// the terminal. The terminal then sends its signals to both. Signals that stop the
// command also go to its descendants in other groups.
type child struct {
	cmd      *exec.Cmd
	newGroup bool
	terminal bool
	done     chan struct{} // closed when the command has ended; its descendants may still run

	// earlier are the children that lockctl had before the command. The shell that has
	// executed lockctl may have started them, such as tee for >(tee log). The values are
	// their start times.
	earlier map[int]string
}

// start starts a command.
func start(cmd *exec.Cmd, newGroup, terminal bool) (*child, error) {
	c := &child{cmd: cmd, newGroup: newGroup, terminal: terminal, done: make(chan struct{})}
	c.earlier = map[int]string{}
	for _, p := range descendants(os.Getpid(), nil) {
		c.earlier[p.pid] = p.started
	}
	setUp(cmd, newGroup)
	// The command inherits ignored signals, but not caught ones. So lockctl catches TTOU
	// while it starts the command.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTTOU)
	defer ignoreTerminalOutput()
	started := make(chan error)
	go func() {
		// The kernel signals the command when the thread that has started it ends. So
		// the thread must live as long as the command.
		runtime.LockOSThread()
		err := cmd.Start()
		if errors.Is(err, syscall.ENOEXEC) { // a script without a #! line
			script := &exec.Cmd{
				Path: "/bin/sh", Args: append([]string{"/bin/sh", cmd.Path}, cmd.Args[1:]...),
				Env: cmd.Env, Stdin: cmd.Stdin, Stdout: cmd.Stdout, Stderr: cmd.Stderr,
			}
			setUp(script, newGroup)
			c.cmd = script
			err = script.Start()
		}
		started <- err
		if err == nil {
			_ = c.cmd.Wait() // ProcessState has the result
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// pid returns the process ID of the command. It is also the ID of a new group.
func (c *child) pid() int { return c.cmd.Process.Pid }

// passedSignals returns the signals to pass on to the command, besides endingSignals.
// TSTP is not passed on in the terminal's group, where Ctrl-Z stops both the command and
// lockctl.
func passedSignals(newGroup, terminal bool) []os.Signal {
	list := []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH, syscall.SIGCONT}
	if newGroup || !terminal {
		list = append(list, syscall.SIGTSTP)
	}
	return list
}

// pass sends a signal that lockctl has received to the command. An early signal was
// received before the command was started.
func (c *child) pass(s os.Signal, early bool) {
	if harmless(s) || c.fromTerminal(s) && !early {
		return
	}
	if c.newGroup {
		_ = syscall.Kill(-c.pid(), s.(syscall.Signal)) // it may have ended already
	} else {
		_ = c.cmd.Process.Signal(s)
	}
	if s == syscall.SIGTSTP {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}
}

// fromTerminal reports whether the terminal has sent a signal to the command as well.
func (c *child) fromTerminal(s os.Signal) bool {
	return c.terminal && !c.newGroup && (s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGWINCH)
}

// stop signals the command and what it has started. A process that has been stopped is
// continued, so that it notices. One that gets signals from its parent may get this one
// twice.
func (c *child) stop(s os.Signal) {
	adoptOrphans()
	if c.newGroup {
		_ = syscall.Kill(-c.pid(), s.(syscall.Signal))
		_ = syscall.Kill(-c.pid(), syscall.SIGCONT)
	} else {
		_ = c.cmd.Process.Signal(s)
		_ = c.cmd.Process.Signal(syscall.SIGCONT)
	}
	for _, pid := range c.others() {
		_ = syscall.Kill(pid, s.(syscall.Signal))
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// others returns the descendants of lockctl that are neither the command nor in its own
// group. A shell with job control and timeout(1) start processes in other groups.
func (c *child) others() []int {
	var list []int
	for _, p := range descendants(os.Getpid(), c.earlier) {
		if p.pid != c.pid() && (!c.newGroup || p.group != c.pid()) {
			list = append(list, p.pid)
		}
	}
	return list
}

// kill kills the command and its descendants.
func (c *child) kill() { c.stop(syscall.SIGKILL) }

// alive reports whether the command, or a process that stop would signal, still runs.
func (c *child) alive() bool {
	select {
	case <-c.done:
	default:
		return true
	}
	return c.newGroup && groupRuns(c.pid()) || len(c.others()) > 0
}

// exitCode returns the exit code of the command, as a shell would show it. The command
// must have ended.
func (c *child) exitCode() int {
	status := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return signalExit + int(status.Signal())
	}
	return status.ExitStatus()
}

// findFault returns the error for a command that cannot be run, with the exit code that a
// shell uses.
func findFault(name string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EISDIR) {
		return &exitError{exitNotExecutable, fmt.Errorf("cannot execute %s: %w", name, unwrapExec(err))}
	}
	return &exitError{exitNotFound, fmt.Errorf("cannot find %s: %w", name, unwrapExec(err))}
}

func unwrapExec(err error) error {
	if e, is := errors.AsType[*exec.Error](err); is {
		return e.Err
	}
	return err
}

// ignoreTerminalOutput lets lockctl write to its terminal from the background without
// being stopped by TTOU.
func ignoreTerminalOutput() { signal.Ignore(syscall.SIGTTOU) }

// endByInterrupt ends the program by SIGINT. It returns if the signal is ignored.
func endByInterrupt() {
	if signal.Ignored(syscall.SIGINT) {
		return
	}
	signal.Reset(syscall.SIGINT)
	_ = syscall.Kill(os.Getpid(), syscall.SIGINT)
	<-time.After(time.Minute) // until the signal, which another thread may get, ends the program
}
