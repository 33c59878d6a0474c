package api_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/wire"
)

// list returns a page of the list, and the names in it.
func (s *server) list(t *testing.T, query ...string) (wire.AllLocked, []string) {
	t.Helper()
	a := s.get(t, "/locks/all-locked", query...)
	list := dataOf[wire.AllLocked](t, a)
	names := []string{}
	for _, l := range list.Locks {
		names = append(names, l.ResourceName)
	}
	if list.TotalLocks != len(names) {
		t.Errorf("total_locks %d for %d locks", list.TotalLocks, len(names))
	}
	wantMessage(t, a, fmt.Sprintf("Retrieved %d active locks", len(names)))
	return list, names
}

// TestListByPrefix: characters are compared literally, whatever they mean to LIKE, a
// regular expression or a collation. The list is in the order of code points.
func TestListByPrefix(t *testing.T) {
	names := []string{
		"a", "A", "ab", "a%c", "a_c", `a\c`, "abc", "%", "%_", "_", `\`, `\%`, "a*", "a?", "[a]", "a b", "a'b", " a",
		"á", "a\u0301", "数据库", "数据", "🔒🔑", "🔒", "\ud7ff1", "\ud7ff", "\ue000",
		"z", "z\U0010ffff\U0010ffff!", "z\U0010ffff", "z\U0010fffe", "\U0010ffff\U0010ffff", "\U0010ffff",
		strings.Repeat("x", 255),
	}
	tests := []struct {
		prefix string
		want   []string
	}{
		{"", names},
		{"a", []string{"a", "a b", "a%c", "a'b", "a*", "a?", `a\c`, "a_c", "ab", "abc", "a\u0301"}},
		{"A", []string{"A"}},
		{"ab", []string{"ab", "abc"}},
		{"abcd", []string{}},
		{"%", []string{"%", "%_"}},
		{"_", []string{"_"}},
		{"a%", []string{"a%c"}},
		{"a_", []string{"a_c"}},
		{`a\`, []string{`a\c`}},
		{`\`, []string{`\`, `\%`}},
		{`\%`, []string{`\%`}},
		{"a*", []string{"a*"}},
		{"a?", []string{"a?"}},
		{"[", []string{"[a]"}},
		{"a ", []string{"a b"}},
		{" ", []string{" a"}},
		{"a'", []string{"a'b"}},
		{"á", []string{"á"}},
		{"a\u0301", []string{"a\u0301"}},
		{"数", []string{"数据", "数据库"}},
		{"数据库", []string{"数据库"}},
		{"🔒", []string{"🔒", "🔒🔑"}},
		{"\ud7ff", []string{"\ud7ff", "\ud7ff1"}}, // the last before the surrogates
		{"z", []string{"z", "z\U0010fffe", "z\U0010ffff", "z\U0010ffff\U0010ffff!"}},
		{"z\U0010ffff", []string{"z\U0010ffff", "z\U0010ffff\U0010ffff!"}},
		{"z\U0010ffff\U0010ffff", []string{"z\U0010ffff\U0010ffff!"}},
		{"\U0010ffff", []string{"\U0010ffff", "\U0010ffff\U0010ffff"}}, // the greatest code point
		{strings.Repeat("\U0010ffff", 255), []string{}},
		{strings.Repeat("x", 255), names[len(names)-1:]},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for _, name := range names {
			s.hold(t, name, "p", nil)
		}
		for _, test := range tests {
			t.Run(test.prefix, func(t *testing.T) {
				if _, got := s.list(t, "prefix", test.prefix); !slices.Equal(got, test.want) {
					t.Errorf("prefix %q: (-want +got):\n%s", test.prefix, cmp.Diff(test.want, got))
				}
			})
		}
	})
}

func TestListByProcess(t *testing.T) {
	tests := []struct {
		name  string
		query []string
		want  []string
	}{
		{"everything", nil, []string{"a1", "a2", "b1", "b2"}},
		{"empty parameters", []string{"process_id", "", "prefix", ""}, []string{"a1", "a2", "b1", "b2"}},
		{"one process", []string{"process_id", "p"}, []string{"a1", "b2"}},
		{"other case", []string{"process_id", "P"}, []string{"b1"}},
		{"unknown", []string{"process_id", "p%"}, []string{}},
		{"with a prefix", []string{"process_id", "p", "prefix", "a"}, []string{"a1"}},
		{"with a limit", []string{"process_id", "p", "limit", "1"}, []string{"a1"}},
		{"with all", []string{"process_id", "p", "prefix", "b", "limit", "5"}, []string{"b2"}},
		{"the most", []string{"limit", "1000"}, []string{"a1", "a2", "b1", "b2"}},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for _, h := range [][2]string{{"a1", "p"}, {"gone", "p"}, {"a2", "q"}, {"b1", "P"}, {"b2", "p"}} {
			s.hold(t, h[0], h[1], nil)
		}
		s.release(t, "gone", "p").want(t, 200)
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				if _, got := s.list(t, test.query...); !slices.Equal(got, test.want) {
					t.Errorf("(-want +got):\n%s", cmp.Diff(test.want, got))
				}
			})
		}
	})
}

// pages reads all pages of the list, calls between after each page but the last, and
// returns the names of each page.
func (s *server) pages(t *testing.T, limit int, between func(page int), query ...string) [][]string {
	t.Helper()
	var pages [][]string
	var last wire.Lock
	byName := slices.Contains(query, "prefix")
	next := query
	for {
		list, names := s.list(t, append([]string{"limit", strconv.Itoa(limit)}, next...)...)
		pages = append(pages, names)
		for _, l := range list.Locks {
			if byName && l.ResourceName <= last.ResourceName || !byName && l.ID <= last.ID {
				t.Errorf("page %d: %d, %q comes after %d, %q", len(pages), l.ID, l.ResourceName, last.ID,
					last.ResourceName)
			}
			last = l
		}
		switch {
		case list.NextCursor == nil:
			return pages
		case len(names) != limit:
			t.Fatalf("page %d has %d locks, but it is not the last one", len(pages), len(names))
		}
		next = append([]string{"cursor", *list.NextCursor}, query...)
		between(len(pages))
	}
}

// TestPagesWhileLocksComeAndGo: a lock that is held all the time is listed exactly once,
// and nothing is listed twice.
func TestPagesWhileLocksComeAndGo(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for _, name := range numbered("r", 25) {
			s.hold(t, name, "p", nil)
		}
		pages := s.pages(t, 7, func(page int) {
			switch page {
			case 1:
				s.release(t, "r0000", "p").want(t, 200) // of the previous page
				s.release(t, "r0006", "p").want(t, 200) // the resource of the cursor
				s.release(t, "r0007", "p").want(t, 200) // the first of the next page
				s.release(t, "r0012", "p").want(t, 200)
				s.hold(t, "r0000", "q", nil) // a new hold of an old row, before the cursor
				s.hold(t, "new 1", "p", nil)
			case 2:
				s.release(t, "r0020", "p").want(t, 200)
				s.hold(t, "r0020", "q", nil) // after the cursor: listed with its new hold
				s.forceRelease(t, "r0024", "stuck").want(t, 200)
				s.hold(t, "new 2", "p", nil)
			}
		})
		want := [][]string{
			{"r0000", "r0001", "r0002", "r0003", "r0004", "r0005", "r0006"},
			{"r0008", "r0009", "r0010", "r0011", "r0013", "r0014", "r0015"},
			{"r0016", "r0017", "r0018", "r0019", "r0020", "r0021", "r0022"},
			{"r0023", "new 1", "new 2"},
		}
		if diff := cmp.Diff(want, pages); diff != "" {
			t.Error("pages (-want +got):\n" + diff)
		}
	})
}

// TestNextCursorIsNullAtTheEnd: the last page is never empty.
func TestNextCursorIsNullAtTheEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for held := range 5 {
			for limit := 1; limit <= 5; limit++ {
				pages := s.pages(t, limit, func(int) {})
				want := [][]string{}
				for part := range slices.Chunk(numbered("r", held), limit) {
					want = append(want, part)
				}
				if held == 0 {
					want = [][]string{{}}
				}
				if diff := cmp.Diff(want, pages); diff != "" {
					t.Errorf("%d locks by %d (-want +got):\n%s", held, limit, diff)
				}
			}
			s.hold(t, numbered("r", held+1)[held], "p", nil)
			s.acquireAndOutlive(t, fmt.Sprint("expired ", held), "p") // not counted
		}
		if got := s.get(t, "/locks/all-locked", "limit", "5").body; !strings.HasSuffix(got,
			`],"next_cursor":null}}`+"\n") {
			t.Errorf("at the end: %s", got)
		}
		// Without a limit there are no pages.
		if got := s.get(t, "/locks/all-locked").body; strings.Contains(got, "next_cursor") {
			t.Errorf("without a limit: %s", got)
		}
		first, _ := s.list(t, "limit", "2")
		if _, names := s.list(t, "cursor", *first.NextCursor); !slices.Equal(names,
			[]string{"r0002", "r0003", "r0004"}) {
			t.Errorf("a cursor without a limit: %q", names)
		}
	})
}

// TestPagesWithFilters: the cursor moves over the filtered list.
func TestPagesWithFilters(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for i := range 12 {
			s.hold(t, fmt.Sprintf("%c%d", 'a'+i%2, i), fmt.Sprint("p", i%3), nil)
		}
		want := [][]string{{"a0", "a10", "a2"}, {"a4", "a6", "a8"}}
		if diff := cmp.Diff(want, s.pages(t, 3, func(int) {}, "prefix", "a")); diff != "" {
			t.Error("by prefix (-want +got):\n" + diff)
		}
		want = [][]string{{"a0", "b3", "a6"}, {"b9"}}
		if diff := cmp.Diff(want, s.pages(t, 3, func(int) {}, "process_id", "p0")); diff != "" {
			t.Error("by process (-want +got):\n" + diff)
		}
	})
}

// TestPagesByPrefixWhileLocksComeAndGo: the cursor is a name, also that of a resource
// that is no longer held.
func TestPagesByPrefixWhileLocksComeAndGo(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for _, name := range append(numbered("r/", 12), "q", "s") {
			s.hold(t, name, "p", nil)
		}
		pages := s.pages(t, 5, func(page int) {
			if page == 1 {
				s.release(t, "r/0004", "p").want(t, 200) // the resource of the cursor
				s.release(t, "r/0005", "p").want(t, 200)
				s.release(t, "r/0006", "p").want(t, 200)
				s.hold(t, "r/0006", "q", nil) // a new hold with a higher id
				s.hold(t, "r/", "p", nil)     // before the cursor
				s.hold(t, "r/00065", "p", nil)
			}
		}, "prefix", "r/")
		want := [][]string{
			{"r/0000", "r/0001", "r/0002", "r/0003", "r/0004"},
			{"r/0006", "r/00065", "r/0007", "r/0008", "r/0009"},
			{"r/0010", "r/0011"},
		}
		if diff := cmp.Diff(want, pages); diff != "" {
			t.Error("pages (-want +got):\n" + diff)
		}
	})
}

// TestCursorOfAnotherList: a list by name refuses the cursor of a list by id, and the
// reverse.
func TestCursorOfAnotherList(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		for _, name := range numbered("r", 4) {
			s.hold(t, name, "p", nil)
		}
		byID, _ := s.list(t, "limit", "2")
		byName, _ := s.list(t, "limit", "2", "prefix", "r")
		made := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
		for name, query := range map[string][]string{
			"of ids with a prefix":          {"prefix", "r", "cursor", *byID.NextCursor},
			"of names without a prefix":     {"cursor", *byName.NextCursor},
			"of names with an empty one":    {"prefix", "", "cursor", *byName.NextCursor},
			"empty, with a prefix":          {"prefix", "r", "cursor", ""},
			"made up":                       {"prefix", "r", "cursor", "r0001"},
			"made up, without a name":       {"prefix", "r", "cursor", made("/")},
			"made up, not UTF-8":            {"prefix", "r", "cursor", made("/r\xff")},
			"made up, with a NUL":           {"prefix", "r", "cursor", made("/r\x00")},
			"made up, with an invalid name": {"prefix", "r", "cursor", made("/\xed\xa0\x80")},
			"of names, cut off in between":  {"prefix", "r", "cursor", (*byName.NextCursor)[:5]},
		} {
			if a := s.get(t, "/locks/all-locked", query...); a.status != 422 ||
				!strings.Contains(a.body, `"loc":["query","cursor"]`) {
				t.Errorf("a cursor %s: %d %s", name, a.status, a.body)
			}
		}
	})
}
