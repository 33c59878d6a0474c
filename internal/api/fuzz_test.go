package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"resource-lock-manager/internal/api"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// fuzzTarget is a server without a network. All inputs share its database in memory.
type fuzzTarget struct {
	handler http.Handler
	locks   *store.Store
}

func newFuzzTarget(f *testing.F) *fuzzTarget {
	// The clock stands still, so that no hold expires while an input is checked.
	db, _ := openStore(f, store.SQLite, "")
	log := slog.New(slog.DiscardHandler)
	return &fuzzTarget{
		handler: api.New(newService(db, withLimits(lock.Limits{MaxTTL: maxTTL}), log), databaseID, db.Ping, log),
		locks:   db,
	}
}

func (f *fuzzTarget) ask(t *testing.T, method, target, body string) answer {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	response := httptest.NewRecorder()
	f.handler.ServeHTTP(response, req)
	a := answer{response.Code, response.Header(), response.Body.String()}
	check(t, req, a)
	return a
}

// askQuery sends a query with any bytes.
func (f *fuzzTarget) askQuery(t *testing.T, method, path, query string) answer {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	req.URL.RawQuery = query
	response := httptest.NewRecorder()
	f.handler.ServeHTTP(response, req)
	a := answer{response.Code, response.Header(), response.Body.String()}
	check(t, req, a)
	return a
}

// acquire acquires a lock that does not expire.
func (f *fuzzTarget) acquire(t *testing.T, resource, process string) wire.Acquired {
	t.Helper()
	body := fields{"resource_name": resource, "process_id": process}.json(t)
	return dataOf[wire.Acquired](t, f.ask(t, http.MethodPost, "/locks/request", body))
}

// releaseEverything releases all locks, so that an input that fails does not affect the
// next one.
func (f *fuzzTarget) releaseEverything(t *testing.T) {
	t.Helper()
	var left []lock.Command
	err := f.locks.Held(context.Background(), service.ListFilter{}, func(int, time.Time) error { return nil },
		func(r lock.Resource) error {
			left = append(left, lock.ForceRelease{Resource: r.Name, Reason: "the next input"})
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range left {
		if _, err := f.locks.Execute(context.Background(), c); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzAcquireBody: no body makes the server fail. Only a body that another decoder
// considers valid acquires a lock. That lock excludes others and can be released by its
// name in a query.
func FuzzAcquireBody(f *testing.F) {
	for _, seed := range []string{
		validRequest,
		`{"resource_name":"database_backup","process_id":"process_123","ttl_seconds":300}`,
		`{"ttl_seconds":1e-9,"process_id":"\ud83d\udd12","resource_name":"a\u2028+%41&","x":[{"y":null}],"":1e700}`,
		`{"resource_name":"r","process_id":"p","ttl_seconds":null}`,
		`{"resource_name":"r","process_id":"p","ttl_seconds":1e400}`,
		`{"resource_name":"r","resource_name":"s","process_id":"p"}`,
		`{"Resource_Name":"r","process_id":""}`,
		"{\"resource_name\":\"\xff\",\"process_id\":\"\\ud800\"}",
		`{"resource_name":"` + strings.Repeat("🔒", 255) + `","process_id":"` + strings.Repeat("x", 256) + `"}`,
		"\ufeff" + validRequest, `{"resource_name":"r","process_id":"p","ttl":1}`,
		`[null]`, `null`, `"`, ``,
	} {
		f.Add([]byte(seed))
	}
	target := newFuzzTarget(f)
	ask := target.ask
	f.Fuzz(func(t *testing.T, body []byte) {
		defer target.releaseEverything(t)
		a := ask(t, http.MethodPost, "/locks/request", string(body))
		resource, process, valid := validBody(body)
		switch a.status {
		case http.StatusOK:
			if !valid {
				t.Fatalf("%q was granted: %s", body, a.body)
			}
		case http.StatusUnprocessableEntity:
			if list := decode[wire.ValidationFailure](t, a.body); len(list.Detail) == 0 ||
				list.Code != wire.CodeValidation {
				t.Errorf("%q was refused with %s", body, a.body)
			}
			return
		case http.StatusRequestEntityTooLarge:
			if len(body) <= 64<<10 {
				t.Errorf("a body of %d bytes is too large", len(body))
			}
			return
		default: // including a conflict: every input leaves the database without locks
			t.Fatalf("%q was answered %d %s", body, a.status, a.body)
		}
		if got := dataOf[wire.Acquired](t, a); got.ResourceName != resource || got.ProcessID != process {
			t.Errorf("%q was granted as %+v", body, got)
		}
		ask(t, http.MethodPost, "/locks/request", string(body)).want(t, http.StatusConflict)
		query := url.Values{"resource_name": {resource}, "process_id": {process}}
		ask(t, http.MethodDelete, "/locks/release?"+query.Encode(), "").want(t, http.StatusOK)
		list := dataOf[wire.AllLocked](t, ask(t, http.MethodGet, "/locks/all-locked", ""))
		if list.TotalLocks != 0 {
			t.Fatalf("left behind: %+v", list)
		}
	})
}

// validBody checks a body with encoding/json, whose syntax is less strict than that of
// the API, and by the rules of the contract.
func validBody(body []byte) (resource, process string, valid bool) {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	var fields map[string]json.RawMessage // other fields do not matter, not even a number of 1e400
	if !utf8.Valid(body) || json.Unmarshal(body, &fields) != nil {
		return "", "", false
	}
	value := func(field string) any {
		var v any
		if json.Unmarshal(fields[field], &v) != nil {
			return nil
		}
		return v
	}
	resource, ok1 := value("resource_name").(string)
	process, ok2 := value("process_id").(string)
	if !ok1 || !ok2 || !validName(resource) || !validName(process) {
		return "", "", false
	}
	if ttl := fields["ttl_seconds"]; ttl == nil || string(ttl) == "null" {
		return resource, process, true
	}
	ttl, ok := value("ttl_seconds").(float64)
	// the API compares what it rounded to microseconds
	return resource, process, ok && ttl > 0 && ttl < maxTTL.Seconds()+1e-6
}

func validName(name string) bool {
	return name != "" && utf8.RuneCountInString(name) <= 255 && !strings.ContainsFunc(name, unicode.IsControl)
}

// FuzzRenewAllBody: no body makes the server fail or renews the lock of another process.
func FuzzRenewAllBody(f *testing.F) {
	for _, seed := range []string{
		`{"process_id":"p","ttl_seconds":60}`,
		`{"process_id":"p","ttl_seconds":0.5,"holds":[{"resource_name":"r","fencing_token":1},{"resource_name":"other","fencing_token":2}]}`,
		`{"process_id":"q","ttl_seconds":1e-9,"holds":[]}`,
		`{"process_id":"p","ttl_seconds":60,"holds":[null,1,{},[],{"resource_name":"","fencing_token":0}]}`,
		`{"process_id":"\u0000","ttl_seconds":1e400,"holds":{}}`,
		`{"process_id":"p","ttl_seconds":60,"holds":[{"resource_name":"🔒","fencing_token":9223372036854775807,"x":1}]}`,
		`{"process_id":"p","process_id":"p"}`,
		"{\"process_id\":\"\xff\"}",
		`[]`, `null`, `"`, ``,
	} {
		f.Add([]byte(seed))
	}
	target := newFuzzTarget(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		defer target.releaseEverything(t)
		target.acquire(t, "r", "p") // without expiry
		for _, name := range []string{"s", "t"} {
			target.ask(t, http.MethodPost, "/locks/request",
				`{"resource_name":"`+name+`","process_id":"p","ttl_seconds":3000}`).want(t, 200)
		}
		a := target.ask(t, http.MethodPost, "/locks/renew-all", string(body))
		renewed := map[string]int{} // by process
		switch a.status {
		case http.StatusOK:
			got := dataOf[wire.RenewedAll](t, a)
			var sent struct {
				ProcessID string `json:"process_id"`
				Holds     []wire.HoldRef
			}
			if json.Unmarshal(body, &sent) == nil && len(got.Lost) > len(sent.Holds) {
				t.Errorf("%q lost %d of %d", body, len(got.Lost), len(sent.Holds))
			}
			renewed[got.ProcessID] = got.Renewed
			all := got.ProcessID == "p" && sent.Holds == nil
			if all && (got.Renewed != 2 || got.WithoutExpiry != 1) || !all &&
				got.Renewed+got.WithoutExpiry > len(sent.Holds) {
				t.Errorf("%q renewed %d locks of %q and left %d alone", body, got.Renewed, got.ProcessID,
					got.WithoutExpiry)
			}
		case http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		default:
			t.Fatalf("%q was answered %d %s", body, a.status, a.body)
		}
		list := dataOf[wire.AllLocked](t, target.ask(t, http.MethodGet, "/locks/all-locked", ""))
		for _, l := range list.Locks {
			if (l.ExpiresAt != nil) != (l.ResourceName != "r") || renewed["p"] == 0 && l.ExpiresAt != nil &&
				*l.ExpiresInSeconds != 3000 {
				t.Errorf("%q left %+v", body, l)
			}
		}
		if len(list.Locks) != 3 {
			t.Errorf("%q left %d locks of 3", body, len(list.Locks))
		}
	})
}

// FuzzQuery: no query makes the server fail. Reads and refused requests change nothing.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "resource_name=r&process_id=p", "resource_name=r&process_id=p&fencing_token=1",
		"resource_name=r&fencing_token=1",
		"resource_name=r&reason=x", "prefix=%25_%5C&process_id=p&limit=1&cursor=MQ", "limit=1000&resource_name=r",
		"cursor=enp6enp6enp6eg",
		"limit=0&limit=1", "resource_name=%00&fencing_token=-1", "resource_name=%ff&reason=%f0%9f", "a=%zz", ";&=&&%",
		"resource_name=\xff\x00",
		"event=released,x&since=2024-01-15T10:30:00+01:00&until=0000-01-01T00:00:00%2B23:59",
		"until=9999-12-31T23:59:59-23:59&event=expired",
		"token=1&resource_name=r", "resource_name=r&fencing_token=17.0e0&limit=1e2",
		"prefix=" + strings.Repeat("%F0%9F%94%92", 255), "fencing_token=9223372036854775808&cursor===",
		"process_id=p", "resource_name=r&reason=+",
	} {
		f.Add(seed)
	}
	target := newFuzzTarget(f)
	f.Fuzz(func(t *testing.T, query string) {
		defer target.releaseEverything(t)
		target.acquire(t, "r", "p")
		target.acquire(t, "s", "p")
		before := target.ask(t, http.MethodGet, "/locks/all-locked", "").body
		for _, o := range []struct{ method, path string }{
			{"GET", "/locks/status"},
			{"GET", "/locks/validate"},
			{"GET", "/locks/all-locked"},
			{"GET", "/locks/history"},
			{"DELETE", "/locks/release"},
			{"DELETE", "/locks/force-release"},
			{"DELETE", "/locks/release-all"},
		} {
			a := target.askQuery(t, o.method, o.path, query)
			switch a.status {
			case http.StatusOK, http.StatusNotFound, http.StatusUnprocessableEntity:
			default:
				t.Errorf("%s %s?%s was answered %d %s", o.method, o.path, query, a.status, a.body)
			}
			after := target.ask(t, http.MethodGet, "/locks/all-locked", "").body
			if (o.method == http.MethodGet || a.status != http.StatusOK) && after != before {
				t.Errorf("%s %s?%s was answered %d and changed %s\nto %s", o.method, o.path, query, a.status, before,
					after)
			}
			before = after
		}
	})
}
