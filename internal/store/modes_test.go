package store_test

import (
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
)

// The statements work in every mode in which pgx sends them, with and without preparing
// them: a pooler may support only some of the modes.
func TestQueryModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.Postgres)
			cfg.Source += "&default_query_exec_mode=" + mode
			a, b := open(t, cfg), open(t, cfg)
			notified := listen(t, cfg, b)
			execute(t, a, acquireFor("r", "p", time.Hour))
			first, second := waiting("r", "w1"), waiting("r", "w2")
			second.TTL, second.MinHold, second.Metadata = time.Minute, time.Second, `{"a":"'\\"}`
			enqueue(t, b, first)
			enqueue(t, a, second)
			execute(t, b, lock.Disconnect{Of: first, Keep: time.Hour})
			enqueue(t, b, waiting("r", "w1"))
			if got := processes(t, a, "r"); len(got) != 2 || got[0] != "w1" {
				t.Errorf("%q wait", got)
			}
			if w, err := a.Waiting(t.Context(), true); err != nil || len(w) != 0 {
				t.Errorf("waiting for free resources: %+v, %v", w, err)
			}
			release(t, a, "r", "p")
			if got := notified(); len(got) != 1 || got[0] != "r" {
				t.Errorf("notified %q", got)
			}
			if out := execute(t, b, lock.ExpireAndGrant{Names: []string{"r"}}); len(out.Granted) != 1 {
				t.Errorf("granted %+v", out)
			}
			if granted := release(t, b, "r", "w1"); len(granted) != 0 {
				t.Errorf("granted %+v", granted)
			}
			if out := execute(t, a, lock.ExpireAndGrant{Names: []string{"r"}}); len(out.Granted) != 1 {
				t.Errorf("granted %+v", out)
			}
			if r, now := find(t, a, "r"); len(r.Holds) != 1 || r.Holds[0].Metadata != second.Metadata || !r.Holds[0].Live(now) {
				t.Errorf("stored: %+v", r)
			}
			if names, err := a.HeldBy(t.Context(), "w2", "", 5); err != nil || len(names) != 1 {
				t.Errorf("held: %q, %v", names, err)
			}
			if got := held(t, a, service.ListFilter{Prefix: "r", ProcessID: "w2"}); len(got) != 1 {
				t.Errorf("list: %+v", got)
			}
			execute(t, a, lock.ForceRelease{Resource: "r", Reason: "test"})
			if page, err := a.IdleResources(t.Context(), 0, 10, 0); err != nil || len(page.Names) != 1 {
				t.Errorf("idle: %+v, %v", page, err)
			}
			execute(t, a, lock.DeleteIdle{Names: []string{"r"}, Before: time.Now().Add(time.Hour)})
			for _, f := range []service.HistoryFilter{
				{Resource: "r", Limit: 100},
				{ProcessID: "w2", Limit: 100, Since: time.Now().Add(-time.Hour), Kinds: lock.EventKinds()},
			} {
				if events, err := a.History(t.Context(), f); err != nil || len(events) < 2 {
					t.Errorf("history: %+v, %v", events, err)
				}
			}
			if places, err := a.AbandonedPlaces(t.Context(), 0, 10); err != nil || len(places) != 0 {
				t.Errorf("abandoned: %+v, %v", places, err)
			}
			if err := a.DeleteDeadServers(t.Context(), 0); err != nil {
				t.Error(err)
			}
			if n, err := a.DeleteEvents(t.Context(), 0, 100); err != nil || n == 0 {
				t.Errorf("deleted %d events, %v", n, err)
			}
		})
	}
}
