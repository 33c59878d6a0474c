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

	"golang.org/x/sys/unix"
)

const defaultSignal = "TERM"

// endingSignals are those that end a program by default, as far as others send them.
var endingSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE}

// harmless reports whether a signal is caught only so that it does not end lockctl: that the reader
// of stderr is gone must not take the lock away from the command.
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

// hasTerminal reports whether the process belongs to a terminal, whatever its streams are.
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
// Without a terminal it has a process group of its own, and every signal is for the whole group.
// With one it stays in the group of lockctl, so that it can use the terminal: the terminal itself
// signals both then, and what else is to be signaled are its descendants.
type child struct {
	cmd      *exec.Cmd
	newGroup bool
	done     chan struct{} // closed when the command has ended; its descendants may live on
	targets  []*os.Process // with a terminal: the descendants that have been signaled to stop
}

// start starts a command. Its error is one of starting it.
func start(cmd *exec.Cmd, newGroup bool) (*child, error) {
	c := &child{cmd: cmd, newGroup: newGroup, done: make(chan struct{})}
	setUp(cmd, newGroup)
	started := make(chan error)
	go func() {
		// The signal that the kernel sends to the command when lockctl is killed belongs to the
		// thread that has started it, which must therefore live as long.
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

// signals are those that are passed on, besides those that end a program. With a terminal, Ctrl-Z
// stops the command and lockctl without being caught.
func (c *child) signals() []os.Signal {
	list := []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH, syscall.SIGCONT}
	if c.newGroup {
		list = append(list, syscall.SIGTSTP)
	}
	return list
}

// pass sends on a signal that lockctl has got.
func (c *child) pass(s os.Signal) {
	switch {
	case harmless(s):
	case s == syscall.SIGTSTP:
		_ = syscall.Kill(-c.pid(), syscall.SIGTSTP)
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case c.newGroup:
		_ = syscall.Kill(-c.pid(), s.(syscall.Signal)) // it may have ended
	case s == syscall.SIGINT, s == syscall.SIGQUIT: // the terminal has sent it to the command as well
	default:
		_ = c.cmd.Process.Signal(s)
	}
}

// stop signals the command and what it has started.
func (c *child) stop(s os.Signal) {
	if c.newGroup {
		_ = syscall.Kill(-c.pid(), s.(syscall.Signal))
		_ = syscall.Kill(-c.pid(), syscall.SIGCONT) // one that is stopped would not notice
		return
	}
	for _, pid := range descendants(c.pid()) {
		if p, err := os.FindProcess(pid); err == nil {
			c.targets = append(c.targets, p)
		}
	}
	for _, p := range append([]*os.Process{c.cmd.Process}, c.targets...) {
		_ = p.Signal(s)
		_ = p.Signal(syscall.SIGCONT)
	}
}

// kill ends the command and what it has started.
func (c *child) kill() { c.stop(syscall.SIGKILL) }

// alive reports whether the command, or one of those that stop has signaled with it, still runs.
func (c *child) alive() bool {
	select {
	case <-c.done:
	default:
		return true
	}
	if c.newGroup {
		return syscall.Kill(-c.pid(), 0) == nil
	}
	for _, p := range c.targets {
		if p.Signal(syscall.Signal(0)) == nil {
			return true
		}
	}
	return false
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

// ignoreTerminalOutput keeps lockctl from being stopped when it writes to its terminal from the
// background while the terminal forbids that.
func ignoreTerminalOutput() { signal.Ignore(syscall.SIGTTOU) }
