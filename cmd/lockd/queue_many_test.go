package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestManyWaitersOfOneResource(t *testing.T) {
	onBoth(t, func(t *testing.T, databaseURL string) {
		count := 2000
		if serversOn(databaseURL) > 1 {
			count = 500 // Postgres takes longer for each hand-over
		}
		s := start(t, databaseURL)
		h := s.acquire(t, "r", "holder")
		var served grantLog
		var all sync.WaitGroup
		for i := range count {
			w := s.wait(t, waiting("r", fmt.Sprint("waiter ", i)))
			all.Go(func() {
				<-w.done
				if _, granted := holdOf(w.reply); !granted {
					t.Errorf("%s got %+v, %v", w.process, w.reply, w.err)
					return
				}
				served.begin(t, w.reply)
				served.end()
				path := "/locks/release-all?process_id=" + strings.ReplaceAll(w.process, " ", "+")
				if r, err := s.try(http.MethodDelete, path, nil); err != nil || r.Status != http.StatusOK {
					t.Errorf("%s released the lock: %+v, %v", w.process, r, err)
				}
			})
		}
		begun := time.Now()
		await(t, "length of the queue", count, func() int { return len(s.queue(t, "r")) })
		t.Logf("%v until all were queued; %s", time.Since(begun), s.Memory(t))
		begun = time.Now()
		s.release(t, h)
		all.Wait()
		t.Logf("%v for %d hand-overs; %s", time.Since(begun), count, s.Memory(t))
		served.wantInOrder(t)
		s.wantQueue(t, "r")
		s.awaitFree(t, "r")
	})
}

// TestManyResourcesWithAWaiter has thousands of locks with one waiter each, and releases
// them all at once.
func TestManyResourcesWithAWaiter(t *testing.T) {
	onBoth(t, func(t *testing.T, databaseURL string) {
		const count = 2000
		s := start(t, databaseURL)
		waiters := make([]*waiter, count)
		const atOnce = 50 // a busy machine cannot open all connections at once
		var all sync.WaitGroup
		for first := range atOnce {
			all.Go(func() {
				for i := first; i < count; i += atOnce {
					resource, waiter := fmt.Sprint("resource ", i), fmt.Sprint("waiter ", i)
					s.acquire(t, resource, "holder")
					waiters[i] = s.wait(t, waiting(resource, waiter))
					s.awaitQueue(t, resource, waiter)
				}
			})
		}
		all.Wait()
		t.Log(s.Memory(t))
		begun := time.Now()
		r := s.do(t, http.MethodDelete, "/locks/release-all?process_id=holder", nil)
		if r.Status != http.StatusOK || r.Data["released"] != float64(count) {
			t.Errorf("release-all: %+v", r)
		}
		for _, w := range waiters {
			w.granted(t)
		}
		t.Logf("%v for %d hand-overs; %s", time.Since(begun), count, s.Memory(t))
		if held := len(s.locked(t)); held != count {
			t.Errorf("%d locks are held, want %d", held, count)
		}
	})
}
