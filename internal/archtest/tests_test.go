package archtest_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Tests wait for signals: a sleep is too short on a busy machine and too long on others. A
// skipped test checks nothing but looks as if it had passed.
func TestTestsNeitherSleepNorSkip(t *testing.T) {
	t.Parallel()
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files++
		positions := token.NewFileSet()
		file, err := parser.ParseFile(positions, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, fault := range faults(positions, file) {
			t.Error(fault)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 { // this one is among them
		t.Errorf("only %d test files found below %s", files, root)
	}
}

// The search finds calls and values that are passed on, and reports nothing else.
func TestFaultsAreFound(t *testing.T) {
	t.Parallel()
	const source = `package p

import (
	"path/filepath"
	clock "time"
)

func TestX(t *testing.T) {
	clock.Sleep(1) // line 9
	wait := clock.Sleep // line 10
	t.Skip("later") // line 11
	tb.Skipf("%d", 1) // line 12
	defer f.SkipNow() // line 13
	wait(filepath.SkipDir)
	other.Sleep()
	t.Log("time.Sleep, t.Skip()")
}
`
	positions := token.NewFileSet()
	file, err := parser.ParseFile(positions, "x_test.go", source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"x_test.go:9:2: a test sleeps",
		"x_test.go:10:10: a test sleeps",
		"x_test.go:11:2: a test is skipped",
		"x_test.go:12:2: a test is skipped",
		"x_test.go:13:8: a test is skipped",
	}
	if diff := cmp.Diff(want, faults(positions, file)); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

// faults finds every use of time.Sleep and of the Skip methods of testing's types.
func faults(positions *token.FileSet, file *ast.File) []string {
	timeName := ""
	for _, spec := range file.Imports {
		if spec.Path.Value == `"time"` {
			timeName = "time"
			if spec.Name != nil {
				timeName = spec.Name.Name
			}
		}
	}
	var found []string
	ast.Inspect(file, func(node ast.Node) bool {
		selector, ok := node.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		of, _ := selector.X.(*ast.Ident)
		switch selector.Sel.Name {
		case "Sleep":
			if of != nil && of.Name == timeName {
				found = append(found, fmt.Sprintf("%v: a test sleeps", positions.Position(selector.Pos())))
			}
		case "Skip", "Skipf", "SkipNow":
			found = append(found, fmt.Sprintf("%v: a test is skipped", positions.Position(selector.Pos())))
		}
		return true
	})
	return found
}
