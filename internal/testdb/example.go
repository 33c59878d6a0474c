package testdb

import (
	"os"
	"strings"
	"testing"
)

// Example returns the SQL statement of docs/FENCING.md that has the given first line, so
// that tests run what users copy. It is for packages two folders below the project's
// root.
func Example(tb testing.TB, firstLine string) string {
	tb.Helper()
	page, err := os.ReadFile("../../docs/FENCING.md")
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "```sql\n"+firstLine+"\n")
	text, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		tb.Fatalf("docs/FENCING.md has no SQL that starts with %q", firstLine)
	}
	return text
}
