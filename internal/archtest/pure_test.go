package archtest_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// purePackages decide by their arguments alone. The tests and the checkers run their
// rules with any time and any state.
var purePackages = []string{"internal/lock"}

// impureImports must not be imported by a pure package, nor any package below them.
var impureImports = []string{
	"context", "crypto/rand", "database", "io", "log", "math/rand", "net", "os", "runtime", "sync", "syscall", "unsafe",
}

// impureTime are the functions of package time that read the clock or wait.
var impureTime = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}

func TestPurePackagesHaveNoClockAndNoConcurrency(t *testing.T) {
	t.Parallel()
	for _, path := range purePackages {
		entries, err := os.ReadDir(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		for _, entry := range entries {
			if !strings.HasSuffix(entry.Name(), ".go") || strings.HasSuffix(entry.Name(), "_test.go") {
				continue
			}
			files++
			name := filepath.Join(root, path, entry.Name())
			positions := token.NewFileSet()
			file, err := parser.ParseFile(positions, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, impurity := range impurities(positions, file) {
				t.Error(impurity)
			}
		}
		if files == 0 {
			t.Errorf("%s has no source files: its rule guards nothing", path)
		}
	}
}

// The search finds what it is for, under any name of an import, and nothing else.
func TestImpuritiesAreFound(t *testing.T) {
	t.Parallel()
	const source = `package p

import (
	"errors"
	"log/slog" // line 5
	"math/rand/v2" // line 6
	"net" // line 7
	"sync/atomic" // line 8
	clock "time"
	. "time" // line 10
	"netip"
)

type s struct{ c chan int } // line 14

func f(t clock.Time, d clock.Duration) {
	_ = clock.Now() // line 17
	wait := clock.AfterFunc // line 18
	go f(t, d) // line 19
	select {} // line 20
	_ = t.After(t) || t.Add(d).Before(clock.Unix(0, 0)) || now.Since()
}
`
	positions := token.NewFileSet()
	file, err := parser.ParseFile(positions, "x.go", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"x.go:5:2: a pure package imports log/slog",
		"x.go:6:2: a pure package imports math/rand/v2",
		"x.go:7:2: a pure package imports net",
		"x.go:8:2: a pure package imports sync/atomic",
		"x.go:10:2: a pure package imports time without its name",
		"x.go:14:18: a pure package uses a channel",
		"x.go:17:6: a pure package uses time.Now",
		"x.go:18:10: a pure package uses time.AfterFunc",
		"x.go:19:2: a pure package starts a goroutine",
		"x.go:20:2: a pure package waits in a select",
	}
	if diff := cmp.Diff(want, impurities(positions, file)); diff != "" {
		t.Errorf("impurities (-want +got):\n%s", diff)
	}
}

// impurities returns every import and every construct that makes a file depend on more
// than the arguments of its functions.
func impurities(positions *token.FileSet, file *ast.File) []string {
	var found []string
	add := func(node ast.Node, format string, args ...any) {
		what := fmt.Sprintf(format, args...)
		found = append(found, fmt.Sprintf("%v: a pure package %s", positions.Position(node.Pos()), what))
	}
	var timeNames []string
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has reported it
		}
		switch {
		case slices.ContainsFunc(impureImports, func(impure string) bool {
			return path == impure || strings.HasPrefix(path, impure+"/")
		}):
			add(spec, "imports %s", path)
		case path == "time" && spec.Name == nil:
			timeNames = append(timeNames, "time")
		case path == "time" && spec.Name.Name == ".":
			add(spec, "imports time without its name")
		case path == "time":
			timeNames = append(timeNames, spec.Name.Name)
		}
	}
	ast.Inspect(file, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.SelectorExpr:
			of, ok := node.X.(*ast.Ident)
			if ok && slices.Contains(timeNames, of.Name) && slices.Contains(impureTime, node.Sel.Name) {
				add(node, "uses time.%s", node.Sel.Name)
			}
		case *ast.GoStmt:
			add(node, "starts a goroutine")
		case *ast.ChanType:
			add(node, "uses a channel")
		case *ast.SelectStmt:
			add(node, "waits in a select")
		}
		return true
	})
	return found
}
