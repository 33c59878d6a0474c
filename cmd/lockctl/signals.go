package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signalExit is what a shell adds to the number of a signal that has ended a program.
const signalExit = 128

// signals are those that lockctl gets. Until a command runs, those that would end lockctl end its
// context instead; from then on a function handles them.
type signals struct {
	all    chan os.Signal
	closed chan struct{}
	cancel context.CancelFunc

	mu     sync.Mutex
	first  int // the number of the one that has ended the context; 0: none
	handle func(os.Signal)
}

// watchSignals begins to catch the signals that would end the program. One that was ignored when the
// program started stays ignored, as nohup and background jobs of scripts want it.
func watchSignals(ctx context.Context) (context.Context, *signals) {
	ctx, cancel := context.WithCancel(ctx)
	s := &signals{all: make(chan os.Signal, 16), closed: make(chan struct{}), cancel: cancel}
	s.catch(endingSignals)
	go s.receive()
	return ctx, s
}

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
			s.mu.Lock()
			handle := s.handle
			number, _ := one.(syscall.Signal)
			if handle == nil && s.first == 0 && !harmless(one) {
				s.first = int(number)
			}
			if s.first != 0 {
				s.cancel()
			}
			s.mu.Unlock()
			if handle != nil {
				handle(one)
			}
		}
	}
}

// caught returns the number of the signal that has ended the context; 0: none has.
func (s *signals) caught() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first
}

// pass has a function handle all signals, and others as well; nil: as before. It returns the number of
// the signal that has come before; 0: none.
func (s *signals) pass(handle func(os.Signal), others []os.Signal) int {
	s.mu.Lock()
	s.handle = handle
	first := s.first
	s.mu.Unlock()
	s.catch(others)
	return first
}

func (s *signals) stop() {
	signal.Stop(s.all)
	close(s.closed)
	s.cancel()
}
