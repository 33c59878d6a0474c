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

// endingSignals are those that end a program by default, as far as others send them.
var endingSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE}

// harmless reports whether a signal is caught only so that it does not end lockctl: that
// the reader of stderr is gone must not take the lock away from the command.
func harmless(s os.Signal) bool { return s == syscall.SIGPIPE }

// signalByName returns the signal of a name such as TERM or SIGTERM.
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

// hasTerminal reports whether the process belongs to a terminal, whatever its streams
// are.
func hasTerminal() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	return tty.Close() == nil
}

// shell is the command line that runs a string.
func shell(text string) []string { return []string{"/bin/sh", "-c", text} }

// child is the command that runs under the lock.
//
// Without a terminal it has a process group of its own, and every signal is for the whole
// group. With one it stays in the group of lockctl, so that it can use the terminal,
// which itself signals both then. What stops the command goes to its descendants as well,
// whatever their group is.
type child struct {
	cmd      *exec.Cmd
	newGroup bool
	terminal bool
	done     chan struct{} // closed when the command has ended; its descendants may live on

	// before are the children that lockctl had already: the shell that has become lockctl may
	// have started them, such as tee for >(tee log). They are none of the command's.
	before map[int]string // by pid, when they were started
}

// start starts a command. Its error is one of starting it.
func start(cmd *exec.Cmd, newGroup, terminal bool) (*child, error) {
	c := &child{cmd: cmd, newGroup: newGroup, terminal: terminal, done: make(chan struct{})}
	c.before = map[int]string{}
	for _, p := range descendants(os.Getpid(), nil) {
		c.before[p.pid] = p.started
	}
	setUp(cmd, newGroup)
	// What lockctl ignores the command would ignore as well, but not what lockctl
	// catches.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTTOU)
	defer ignoreTerminalOutput()
	started := make(chan error)
	go func() {
		// The signal that the kernel sends to the command when lockctl is killed belongs
		// to the thread that has started it, which must therefore live as long.
		runtime.LockOSThread()
		err := cmd.Start()
		if errors.Is(err, syscall.ENOEXEC) { // a script without a first line that names its interpreter
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

// pid is that of the command, and in a group of its own that of the group.
func (c *child) pid() int { return c.cmd.Process.Pid }

// passedSignals are those that are passed on, besides those that end a program. With a
// terminal, Ctrl-Z stops the command and lockctl without being caught.
func passedSignals(newGroup, terminal bool) []os.Signal {
	list := []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH, syscall.SIGCONT}
	if newGroup || !terminal {
		list = append(list, syscall.SIGTSTP)
	}
	return list
}

// pass sends on a signal that lockctl has got. An early one came before there was a command.
func (c *child) pass(s os.Signal, early bool) {
	if harmless(s) || c.fromTerminal(s) && !early {
		return
	}
	if c.newGroup {
		_ = syscall.Kill(-c.pid(), s.(syscall.Signal)) // it may have ended
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

// others returns the descendants of lockctl but for the command and the processes of its
// own group: a shell with job control and timeout(1) give what they run another group.
func (c *child) others() []int {
	var list []int
	for _, p := range descendants(os.Getpid(), c.before) {
		if p.pid != c.pid() && (!c.newGroup || p.group != c.pid()) {
			list = append(list, p.pid)
		}
	}
	return list
}

// kill ends the command and what it has started.
func (c *child) kill() { c.stop(syscall.SIGKILL) }

// alive reports whether the command, or anything that stop would signal, still runs.
func (c *child) alive() bool {
	select {
	case <-c.done:
	default:
		return true
	}
	return c.newGroup && groupRuns(c.pid()) || len(c.others()) > 0
}

// exitCode is that of the command, as a shell would tell it. It must have ended.
func (c *child) exitCode() int {
	status := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return signalExit + int(status.Signal())
	}
	return status.ExitStatus()
}

// findFault is why a command cannot be run, with the exit code that a shell has for it.
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

// ignoreTerminalOutput keeps lockctl from being stopped when it writes to its terminal
// from the background while the terminal forbids that.
func ignoreTerminalOutput() { signal.Ignore(syscall.SIGTTOU) }

// endByInterrupt ends the program like Ctrl-C does by default. It returns if that is
// ignored.
func endByInterrupt() {
	if signal.Ignored(syscall.SIGINT) {
		return
	}
	signal.Reset(syscall.SIGINT)
	_ = syscall.Kill(os.Getpid(), syscall.SIGINT)
	<-time.After(time.Minute) // another thread may get the signal
}
