package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

const (
	defaultSignal    = "KILL"
	hasProcessGroups = false
)

var endingSignals = []os.Signal{os.Interrupt, syscall.SIGTERM} // Ctrl-C, and the end of the console

func harmless(os.Signal) bool { return false }

// signalByName returns the only signal of Windows, KILL.
func signalByName(name string) (os.Signal, error) {
	if strings.EqualFold(strings.TrimPrefix(strings.ToUpper(name), "SIG"), "KILL") {
		return os.Kill, nil
	}
	return nil, fmt.Errorf("--signal: Windows has no signal %s, want KILL", name)
}

func hasTerminal() bool { return true }

// shell returns the command line that runs a string by the shell. With /S, cmd does not
// change the text between the outermost quotes.
func shell(text string) []string { return []string{"cmd", "/S", "/C", text} }

// child is the command that runs under the lock. The console signals it together with
// lockctl. Windows cannot signal processes or groups of processes. So stop kills the
// command, and processes that it has started continue.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func start(cmd *exec.Cmd, _, _ bool) (*child, error) {
	if len(cmd.Args) == 4 && cmd.Args[1] == "/S" { // cmd has its own rules for quotes
		cmd.SysProcAttr = &syscall.SysProcAttr{CmdLine: `cmd /S /C "` + cmd.Args[3] + `"`}
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

func passedSignals(_, _ bool) []os.Signal { return nil }

func (c *child) pass(os.Signal, bool) {}

func (c *child) stop(os.Signal) { _ = c.cmd.Process.Kill() }

func (c *child) kill() { _ = c.cmd.Process.Kill() }

func (c *child) alive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

func (c *child) exitCode() int { return c.cmd.ProcessState.ExitCode() }

func findFault(name string, err error) error {
	return &exitError{exitNotFound, fmt.Errorf("cannot find %s: %w", name, err)}
}

func ignoreTerminalOutput() {}

func endByInterrupt() {}
