package api_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"resource-lock-manager/internal/api"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// FuzzAcquireBody: no body makes the server fail, and only a sound one, by another decoder's judgement, makes a lock: one
// that keeps others out and can be released by its name in a query.
func FuzzAcquireBody(f *testing.F) {
	for _, seed := range []string{
		sound,
		`{"resource_name":"database_backup","process_id":"process_123","ttl_seconds":300}`,
		`{"ttl_seconds":1e-9,"process_id":"\ud83d\udd12","resource_name":"a\u2028+%41&","x":[{"y":null}],"":1e700}`,
		`{"resource_name":"r","process_id":"p","ttl_seconds":null}`,
		`{"resource_name":"r","process_id":"p","ttl_seconds":1e400}`,
		`{"resource_name":"r","resource_name":"s","process_id":"p"}`,
		`{"Resource_Name":"r","process_id":""}`,
		"{\"resource_name\":\"\xff\",\"process_id\":\"\\ud800\"}",
		`{"resource_name":"` + strings.Repeat("🔒", 255) + `","process_id":"` + strings.Repeat("x", 256) + `"}`,
		`[null]`, `null`, `"`, ``,
	} {
		f.Add([]byte(seed))
	}
	// The clock stands still: no hold ends while an input is looked at.
	db, _ := openStore(f, store.SQLite, "")
	handler := api.New(lock.NewService(db, lock.Limits{MaxTTL: maxTTL}), db.Ping, slog.New(slog.DiscardHandler))
	ask := func(t *testing.T, method, target, body string) answer {
		req := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, req)
		a := answer{response.Code, response.Header(), response.Body.String()}
		if err := checkAgainstDocument(req, a); err != nil {
			t.Errorf("%d %s\nis not as documented: %v", a.status, a.body, err)
		}
		return a
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		// The inputs share the database: what one that fails leaves behind must not fail the next.
		defer func() {
			held, _, _ := db.Held(context.Background())
			for _, r := range held {
				_, _ = db.Execute(context.Background(), lock.Release{Resource: r.Name, ProcessID: r.Holds[0].ProcessID})
			}
		}()
		a := ask(t, http.MethodPost, "/locks/request", string(body))
		resource, process, sound := soundBody(body)
		switch a.status {
		case http.StatusOK:
			if !sound {
				t.Fatalf("%q was granted: %s", body, a.body)
			}
		case http.StatusUnprocessableEntity:
			if list := decode[wire.ValidationFailure](t, a.body); len(list.Detail) == 0 || list.Code != wire.CodeValidation {
				t.Errorf("%q was refused with %s", body, a.body)
			}
			return
		case http.StatusRequestEntityTooLarge:
			if len(body) <= 64<<10 {
				t.Errorf("a body of %d bytes is too large", len(body))
			}
			return
		default: // a conflict too: every input leaves the database without locks
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

// soundBody judges a body by encoding/json, which is laxer about syntax than the API, and by the contract's rules.
func soundBody(body []byte) (resource, process string, sound bool) {
	var fields map[string]json.RawMessage // other fields are nobody's business, not even a number of 1e400
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
	if !ok1 || !ok2 || !soundName(resource) || !soundName(process) {
		return "", "", false
	}
	if ttl := fields["ttl_seconds"]; ttl == nil || string(ttl) == "null" {
		return resource, process, true
	}
	ttl, ok := value("ttl_seconds").(float64)
	return resource, process, ok && ttl > 0 && ttl < maxTTL.Seconds()+1e-6 // the API compares what it rounded to microseconds
}

func soundName(name string) bool {
	return name != "" && utf8.RuneCountInString(name) <= 255 && !strings.ContainsFunc(name, unicode.IsControl)
}
