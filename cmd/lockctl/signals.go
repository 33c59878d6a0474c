package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
)

// signalExit is the number that a shell adds to the number of a signal that has ended a
// program.
const signalExit = 128

// signals handles the signals that lockctl receives. Before the command runs, a signal
// that would end lockctl cancels its context. While the command runs, a function handles
// all signals.
type signals struct {
	all    chan os.Signal
	closed chan struct{}
	cancel context.CancelFunc

	mu     sync.Mutex
	ctrlC  bool        // INT was received
	first  int         // the number of the signal that has canceled the context; 0: none
	early  []os.Signal // received before there was a handle function
	handle func(s os.Signal, early bool)
}

// watchSignals starts to catch the signals that would end the program. If INT and HUP
// were ignored at the start of the program, they stay ignored: nohup and background jobs
// of scripts rely on this. For other signals Go does not preserve the initial state. So
// watchSignals ignores QUIT if INT is ignored, because shells ignore both in background
// jobs.
func watchSignals(ctx context.Context) (context.Context, *signals) {
	ctx, cancel := context.WithCancel(ctx)
	s := &signals{all: make(chan os.Signal, 16), closed: make(chan struct{}), cancel: cancel}
	if signal.Ignored(os.Interrupt) {
		signal.Ignore(syscall.SIGQUIT)
	}
	s.catch(endingSignals)
	go s.receive()
	return ctx, s
}

// catch starts to catch more signals.
func (s *signals) catch(list []os.Signal) {
	for _, one := range list {
		if !signal.Ignored(one) {
			signal.Notify(s.all, one)
		}
	}
}

func (s *signals) receive() {
	for {
		select {
		case <-s.closed:
			return
		case one := <-s.all:
			s.received(one)
		}
	}
}

func (s *signals) received(one os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctrlC = s.ctrlC || one == os.Interrupt
	if s.handle != nil {
		s.handle(one, false)
		return
	}
	s.early = append(s.early, one)
	if !harmless(one) && slices.Contains(endingSignals, one) {
		if number, _ := one.(syscall.Signal); s.first == 0 {
			s.first = int(number)
		}
		s.cancel()
	}
}

// caught returns the number of the signal that has canceled the context, or 0.
func (s *signals) caught() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first
}

// pass sets the function that handles all signals. The function also gets the earlier
// signals, with early set. With nil, signals are handled as at the start.
func (s *signals) pass(handle func(s os.Signal, early bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handle = handle
	if handle == nil {
		return
	}
	for _, one := range s.early {
		handle(one, true)
	}
	s.early = nil
}

// stop restores the default actions of all signals but the harmless ones, which it
// ignores: a last report to a closed pipe must not change the exit code.
func (s *signals) stop() {
	for _, one := range endingSignals {
		if harmless(one) {
			signal.Ignore(one)
		}
	}
	signal.Stop(s.all)
	close(s.closed)
	s.cancel()
}

// raise ends lockctl by SIGINT if Ctrl-C has ended the work. The exit code is 130 in
// either case, but a shell ends its loop only if the program was ended by the signal.
func (s *signals) raise(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctrlC && exitCode(err) == exitInterrupted {
		endByInterrupt()
	}
}
