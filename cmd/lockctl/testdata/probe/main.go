//go:build linux

// Command probe is the command that lockctl runs in the tests. It prints a line for each
// event.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	name := flag.String("name", "child", "the first word of each line")
	ignore := flag.String("ignore", "", "signals to ignore, separated by commas")
	keep := flag.Bool("keep", false, "continue after INT, TERM, HUP and QUIT")
	sub := flag.Bool("sub", false, "start another probe with the name grandchild and the same flags")
	orphan := flag.Bool("orphan", false, "start another probe with the name orphan, whose parent ends")
	session := flag.Bool("session", false, "start the other probes in a new session")
	untilEOF := flag.Bool("stdin", false, "print the lines of stdin, and end at its end")
	code := flag.Int("code", 0, "exit code")
	env := flag.Bool("env", false, "print the variables that begin with LOCK")
	flag.Parse()

	for name := range strings.SplitSeq(*ignore, ",") {
		if name != "" {
			signal.Ignore(unix.SignalNum("SIG" + name))
		}
	}
	got := make(chan os.Signal, 100)
	for _, s := range []os.Signal{
		unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
		unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP,
	} {
		if !signal.Ignored(s) {
			signal.Notify(got, s)
		}
	}
	// A read in the background must not stop the probe before it has reported TSTP.
	signal.Notify(make(chan os.Signal, 1), unix.SIGTTIN)
	if *sub {
		start(*name, "grandchild", *ignore, *keep, *session)
	}
	if *orphan { // the probe between the two ends immediately
		start(*name, "between", "", false, *session)
	}
	if *name == "between" {
		start(*name, "orphan", "TERM", true, false)
		return
	}
	if *env {
		for _, v := range os.Environ() {
			if strings.HasPrefix(v, "LOCK") {
				fmt.Println("env", v)
			}
		}
	}
	fmt.Println(*name, "ready", os.Getpid(), syscall.Getpgrp())
	lines, eof := make(chan string), make(chan struct{})
	if *untilEOF && *name == "child" {
		go func() {
			in := bufio.NewReader(os.Stdin)
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					fmt.Println(*name, "end", err == io.EOF)
					close(eof)
					return
				}
				lines <- strings.TrimSpace(line)
			}
		}()
	}
	for {
		select {
		case line := <-lines:
			fmt.Println(*name, "read", line)
		case <-eof:
			os.Exit(*code)
		case s := <-got:
			number, _ := s.(syscall.Signal)
			fmt.Println(*name, "got", strings.TrimPrefix(unix.SignalName(number), "SIG"), time.Now().UnixMilli())
			switch s {
			case unix.SIGTSTP:
				_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
			case unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT:
				if !*keep {
					os.Exit(*code)
				}
			}
		}
	}
}

func start(own, name, ignore string, keep, session bool) {
	if own != "child" && own != "between" {
		return
	}
	cmd := exec.Command(os.Args[0], "-name", name, "-ignore", ignore, fmt.Sprint("-keep=", keep))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	if name == "between" {
		_ = cmd.Wait()
	}
}
