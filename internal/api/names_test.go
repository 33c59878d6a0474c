package api_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/wire"
)

// TestNamesSurvive sends names that some layer could parse as syntax to every endpoint,
// as a resource and as a process.
func TestNamesSurvive(t *testing.T) {
	tests := []struct{ name, text string }{
		{"SQL", `'; DROP TABLE resource_locks; --`},
		{"SQL placeholders", `$1 ? ?1 :name @p1`},
		{"SQL pattern", `%_\%`},
		{"quotes", `a"b'c` + "`d`"},
		{"backslashes", `C:\temp\new \u0041 \`},
		{"percent", `100%`},
		{"looks percent-encoded", `%41%00+%zz`},
		{"plus and spaces", `a+b c  d`},
		{"spaces around", ` a `},
		{"only a space", ` `},
		{"query syntax", `a&b=c;d#e?f/../g`},
		{"JSON", `{"resource_name":["x",null]}`},
		{"the word null", `null`},
		{"HTML", `<script>alert("x")</script>&amp;`},
		{"format verbs", `%s %d %!v(MISSING) {0}`},
		{"unicode", `数据库-ÿ-ß-ا`},
		{"beyond the basic plane", `🔒🧪`},
		{"combining", "e\u0301"},
		{"line separators of JavaScript", "a\u2028b\u2029c"},
		{"invisible", "\ufeffa\u200bb\u00a0c"},
		{"noncharacter and replacement", "\uffff\ufffd"},
		{"255 characters", strings.Repeat("x", 255)},
		{"255 characters of four bytes", strings.Repeat("🔒", 255)},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				name := test.text
				a := s.acquire(t, name, name, nil)
				got := dataOf[wire.Acquired](t, a)
				if got.ResourceName != name || got.ProcessID != name {
					t.Errorf("acquired %q by %q", got.ResourceName, got.ProcessID)
				}
				wantMessage(t, a, fmt.Sprintf("Lock acquired successfully for resource '%s'", name))

				conflict := s.acquire(t, name, "another", nil)
				conflict.wantFailure(t, 409, wire.CodeAlreadyLocked,
					fmt.Sprintf("Resource '%s' is already locked by process '%s'", name, name))
				if holder := decode[wire.Conflict](t, conflict.body).Holder.ProcessID; holder != name {
					t.Errorf("the holder is %q", holder)
				}

				// A space may be written as + or as %20.
				encoded := url.QueryEscape(name)
				for _, query := range []string{encoded, strings.ReplaceAll(encoded, "+", "%20"), percentEncoded(name)} {
					a := s.call(t, "GET", "/locks/status?resource_name="+query, "")
					got := dataOf[wire.Status](t, a)
					if got.ResourceName != name || got.LockedBy == nil || *got.LockedBy != name {
						t.Errorf("status of %s: %+v", query, got)
					}
					wantMessage(t, a, fmt.Sprintf("Resource '%s' status retrieved successfully", name))
				}
				if list := s.allLocked(t); len(list.Locks) != 1 || list.Locks[0].ResourceName != name ||
					list.Locks[0].ProcessID != name {
					t.Errorf("all locked: %+v", list)
				}

				s.release(t, name, "another").wantFailure(t, 404, wire.CodeNotHeld,
					fmt.Sprintf("No active lock found for resource '%s' by process 'another'", name))
				a = s.release(t, name, name)
				wantMessage(t, a, fmt.Sprintf("Lock released successfully for resource '%s'", name))
				if got := dataOf[wire.Released](t, a); got.ResourceName != name || got.ProcessID != name {
					t.Errorf("released %q by %q", got.ResourceName, got.ProcessID)
				}
			})
		}
		// No name was executed or mixed up with another: the table exists and nothing is
		// locked.
		if got := s.lockedNames(t); len(got) > 0 {
			t.Errorf("still locked: %q", got)
		}
	})
}

// percentEncoded encodes every byte as %XX.
func percentEncoded(text string) string {
	var out strings.Builder
	for _, b := range []byte(text) {
		fmt.Fprintf(&out, "%%%02X", b)
	}
	return out.String()
}

func wantMessage(t *testing.T, a answer, want string) {
	t.Helper()
	if got := decode[struct{ Message string }](t, a.body).Message; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
}

// TestNamesAreReadable: responses contain names literally, not escaped for HTML or ASCII.
func TestNamesAreReadable(t *testing.T) {
	const name = `<b>&'é数🔒`
	s := realServer(t, store.SQLite)
	for _, a := range []answer{s.acquire(t, name, name, nil), s.acquire(t, name, name, nil), s.release(t, name, name)} {
		if !strings.Contains(a.body, name) {
			t.Errorf("no literal %s in %s", name, a.body)
		}
	}
}

// TestEscapesInJSON: it does not matter how a client escapes a character.
func TestEscapesInJSON(t *testing.T) {
	tests := []struct{ name, spelled, text string }{
		{"ASCII", `\u0041\u002f\/`, "A//"},
		{"two-character escapes", `\"\\`, `"\`},
		{"surrogate pair", `\ud83d\udd12`, "🔒"},
		{"unescaped", `🔒é`, "🔒é"},
	}
	s := realServer(t, store.SQLite)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			// The name of the field may be escaped, too.
			body := fmt.Sprintf(`{"\u0072esource_name":"%s","process_id":"%s"}`, test.spelled, test.spelled)
			got := dataOf[wire.Acquired](t, s.call(t, "POST", "/locks/request", body))
			if got.ResourceName != test.text || got.ProcessID != test.text {
				t.Errorf("acquired %q by %q, want %q", got.ResourceName, got.ProcessID, test.text)
			}
		})
	}
}

// TestNamesAreCompared: names are compared by their bytes. A name that only looks alike
// is another name.
func TestNamesAreCompared(t *testing.T) {
	names := []string{"a", "A", "a ", " a", "á", "a\u0301", "ａ", "a\u200b"}
	onBoth(t, func(t *testing.T, s *server) {
		for _, name := range names {
			s.acquire(t, name, name, nil).want(t, 200)
		}
		if diff := cmp.Diff(names, s.lockedNames(t)); diff != "" {
			t.Error("locked (-want +got):\n" + diff)
		}
		for _, other := range slices.Delete(slices.Clone(names), 0, 1) {
			s.release(t, "a", other).want(t, 404)
		}
	})
}
