package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
)

// signalExit is what a shell adds to the number of a signal that has ended a program.
const signalExit = 128

// signals are those that lockctl gets. Until a command runs, those that would end lockctl
// end its context instead; from then on a function handles all.
type signals struct {
	all    chan os.Signal
	closed chan struct{}
	cancel context.CancelFunc

	mu     sync.Mutex
	ctrlC  bool        // INT has come
	first  int         // the number of the one that has ended the context; 0: none
	early  []os.Signal // what has come before there was a function to handle it
	handle func(s os.Signal, early bool)
}

// watchSignals begins to catch the signals that would end the program. INT and HUP stay
// ignored if they were when the program started, as nohup wants it, and background jobs
// of scripts. QUIT is ignored in these jobs as well. Of it and all others Go does not
// know what they were.
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

// catch begins to catch more signals.
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
			s.got(one)
		}
	}
}

func (s *signals) got(one os.Signal) {
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

// caught returns the number of the signal that has ended the context; 0: none has.
func (s *signals) caught() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first
}

// pass has a function handle all signals, those included that came before, which are
// early; nil: as at the start.
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

// stop restores what signals do, but for the harmless ones: what is left to be printed
// must not end lockctl with another exit code.
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

// raise ends lockctl by the signal if Ctrl-C is what ended the work. To a shell the exit
// code is 130 either way, but only so it ends a loop as well.
func (s *signals) raise(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctrlC && exitCode(err) == exitInterrupted {
		endByInterrupt()
	}
}
