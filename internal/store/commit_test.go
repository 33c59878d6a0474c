package store_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
)

// refusal returns the answer of a database to COMMIT, with the state of the session after
// it.
func refusal(t *testing.T, severity, code string, state byte) []byte {
	t.Helper()
	text, err := (&pgproto3.ErrorResponse{
		Severity: severity, SeverityUnlocalized: severity, Code: code, Message: "of the proxy",
	}).Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	if state != 0 {
		if text, err = (&pgproto3.ReadyForQuery{TxStatus: state}).Encode(text); err != nil {
			t.Fatal(err)
		}
	}
	return text
}

// After an error in answer to COMMIT the outcome is reported as unknown, unless the code
// of the error proves that nothing was changed.
func TestErrorInAnswerToCommit(t *testing.T) {
	t.Parallel()
	type answer struct {
		severity, code string
		state          byte // 0: the connection ends
	}
	unknown := []answer{
		{"ERROR", "40003", 'I'},
		{"ERROR", "XX000", 'I'},
		{"ERROR", "08006", 'I'},
		{"ERROR", "08007", 'I'},
		{"ERROR", "08P01", 'I'},
		{"ERROR", "57P01", 'I'},
		{"ERROR", "57014", 'I'},
		{"ERROR", "53100", 'I'},
		{"ERROR", "53200", 'I'},
		{"ERROR", "58030", 'I'},
		{"ERROR", "58000", 'I'},
		{"ERROR", "55P03", 'I'},
		{"ERROR", "25P01", 'I'},
		{"ERROR", "0A000", 'I'},
		{"ERROR", "22000", 'I'},
		{"ERROR", "", 'I'},
		{"ERROR", "4", 'I'},
		{"ERROR", "ZZZZZ", 'I'},
		{"", "40001", 'I'},
		{"ERROR", "XX000", 'E'},
		{"ERROR", "XX000", 'T'},
		{"FATAL", "57P01", 0},
		{"FATAL", "57P03", 0},
		{"FATAL", "40001", 0},
		{"FATAL", "25P03", 0},
		{"PANIC", "53100", 0},
	}
	cfg := config(t, store.Postgres)
	p := throughProxy(t, &cfg)
	s := open(t, cfg)
	// try acquires a resource whose COMMIT gets the answer.
	try := func(t *testing.T, a answer, delivered bool) error {
		p.answer.Store(refusal(t, a.severity, a.code, a.state))
		p.deliver.Store(delivered)
		p.cutAfter.Store("commit\x00")
		_, err := s.Execute(t.Context(), acquire(t.Name(), "p"))
		if p.cutAfter.Load() != "" {
			t.Error("no COMMIT was seen")
		}
		return err
	}
	for _, a := range unknown {
		for name, delivered := range map[string]bool{"committed": true, "not committed": false} {
			t.Run(a.severity+" "+a.code+" "+string(a.state)+" "+name, func(t *testing.T) {
				if err := try(t, a, delivered); !errors.Is(err, service.ErrOutcomeUnknown) {
					t.Errorf("answer: %v", err)
				}
				wantHeldOnce(t, s, t.Name(), delivered)
			})
		}
	}
	refused := []struct {
		answer
		retried bool // the batch is run again
	}{
		{answer{"ERROR", "40001", 'I'}, true},
		{answer{"ERROR", "40P01", 'I'}, true},
		{answer{"ERROR", "40001", 'E'}, true},
		{answer{"ERROR", "23505", 'I'}, false},
		{answer{"ERROR", "25P02", 'I'}, false},
		{answer{"ERROR", "42501", 'I'}, false},
	}
	for _, a := range refused {
		t.Run(a.severity+" "+a.code+" "+string(a.state)+" refused", func(t *testing.T) {
			if err := try(t, a.answer, false); errors.Is(err, service.ErrOutcomeUnknown) || (err == nil) != a.retried {
				t.Errorf("answer: %v", err)
			}
			wantHeldOnce(t, s, t.Name(), a.retried)
		})
	}
	execute(t, s, acquire("afterwards", "p"))
}

// wantHeldOnce fails the test unless a resource was acquired exactly once, or not at all.
func wantHeldOnce(t *testing.T, s *store.Store, resource string, want bool) {
	t.Helper()
	if r, _ := find(t, s, resource); (len(r.Holds) == 1) != want {
		t.Errorf("held: %+v, want %v", r.Holds, want)
	}
	events, err := s.History(t.Context(), service.HistoryFilter{Resource: resource, Limit: 10})
	if err != nil || (len(events) == 1) != want {
		t.Errorf("history: %+v, %v", events, err)
	}
}

// The settings of a transaction are made together with BEGIN: they cost no round trip.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.Postgres)
	p := throughProxy(t, &cfg)
	s := open(t, cfg)
	execute(t, s, acquire("warm", "p"))
	trips := func(c lock.Command) int32 {
		before := p.answers.Load()
		execute(t, s, c)
		return p.answers.Load() - before
	}
	execute(t, s, lock.Release{Resource: "warm", ProcessID: "p"}) // its statements are prepared now
	for want, c := range map[int32]lock.Command{
		4: acquire("warm", "p"),  // BEGIN, read, write, COMMIT
		5: acquire("fresh", "p"), // and the floor of the tokens
	} {
		if got := trips(c); got != want {
			t.Errorf("%+v: %d round trips, want %d", c, got, want)
		}
	}
}

// A transaction has the settings that it needs, whatever the defaults of the database,
// and leaves none of them behind.
func TestSettingsOfATransaction(t *testing.T) {
	t.Parallel()
	for sync, want := range map[string]string{"off": "on", "on": "on", "local": "local", "remote_write": "remote_write"} {
		t.Run(sync, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.Postgres)
			work(t, cfg)
			name := column(t, cfg, "SELECT current_database()")[0]
			run(t, cfg, "ALTER DATABASE "+name+" SET synchronous_commit = "+sync, "CREATE TABLE seen (settings text)", `
				CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
					INSERT INTO seen SELECT concat_ws(' ', TG_TABLE_NAME, current_setting('synchronous_commit'),
						current_setting('enable_seqscan'), current_setting('enable_bitmapscan'), current_setting('jit'),
						current_setting('idle_in_transaction_session_timeout'));
					RETURN NULL;
				END $$`,
				"CREATE TRIGGER see AFTER INSERT OR UPDATE ON resource_locks EXECUTE FUNCTION see()",
				"CREATE TRIGGER see AFTER DELETE ON lock_events EXECUTE FUNCTION see()")
			s := open(t, cfg)
			execute(t, s, acquire("other", "p"))
			if _, err := s.DeleteEvents(t.Context(), 0, 100); err != nil {
				t.Fatal(err)
			}
			// Deleted history may return after a crash, so its deletion waits for no disk
			// and no standby.
			if got := column(t, cfg, "SELECT DISTINCT settings FROM seen ORDER BY settings"); !slices.Equal(got,
				[]string{"lock_events off off off off 5s", "resource_locks " + want + " off off off 5s"}) {
				t.Errorf("settings: %q", got)
			}
		})
	}
}

// Timestamps do not depend on the time zone and the date style that the database has for
// its sessions.
func TestTimeZoneOfTheDatabase(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"cache_statement", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			cfg := config(t, store.Postgres)
			name := column(t, cfg, "SELECT current_database()")[0]
			run(t, cfg, "ALTER DATABASE "+name+" SET TimeZone = 'Pacific/Kiritimati'", // 14 hours ahead
				"ALTER DATABASE "+name+" SET DateStyle = 'German'")
			cfg.Source += "&default_query_exec_mode=" + mode
			s := open(t, cfg)
			now := execute(t, s, acquireFor("long", "p", time.Hour)).Now
			execute(t, s, acquireFor("short", "p", time.Microsecond))
			if got := held(t, s, service.ListFilter{}); len(got) != 1 || !got[0].Holds[0].ExpiresAt.Equal(now.Add(time.Hour)) {
				t.Errorf("held at %v: %+v", now, got)
			}
			if got := held(t, s, service.ListFilter{Limit: 10}); len(got) != 1 || got[0].Name != "long" {
				t.Errorf("page: %+v", got)
			}
			if names, err := s.Expired(t.Context(), 10); err != nil || len(names) != 1 || names[0] != "short" {
				t.Errorf("expired: %q, %v", names, err)
			}
			if n, err := s.DeleteEvents(t.Context(), time.Hour, 10); err != nil || n != 0 {
				t.Errorf("deleted %d events of the last hour, %v", n, err)
			}
			if d := time.Since(now).Abs(); d > time.Minute {
				t.Errorf("the time is wrong by %v", d)
			}
		})
	}
}
