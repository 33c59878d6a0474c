package api_test

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
)

// noImports replaces every imported package by an empty one.
type noImports struct{}

func (noImports) Import(name string) (*types.Package, error) {
	p := types.NewPackage(name, path.Base(name))
	p.MarkComplete()
	return p, nil
}

// checked is the source of a package, without its tests, and the types of its
// expressions.
type checked struct {
	files []*ast.File
	set   *token.FileSet
	info  types.Info
}

func checkSource(t *testing.T, folder string) checked {
	t.Helper()
	c := checked{set: token.NewFileSet(), info: types.Info{Types: map[ast.Expr]types.TypeAndValue{}}}
	names, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(c.set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		c.files = append(c.files, file)
	}
	conf := types.Config{Importer: noImports{}, Error: func(error) {}} // because the imports are empty
	_, _ = conf.Check(folder, c.set, c.files, &c.info)
	return c
}

// words returns the values of all constants of a type in the package, sorted.
func (c checked) words(typeName string) []string {
	found := map[string]bool{}
	for _, e := range c.info.Types {
		named, is := e.Type.(*types.Named)
		if is && named.Obj().Name() == typeName && e.Value != nil && e.Value.Kind() == constant.String {
			found[constant.StringVal(e.Value)] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// constantReasons returns the positions at which a constant text is the value of a field
// Reason: a word of the server that is not an EndReason.
func (c checked) constantReasons() (places []string) {
	note := func(value ast.Expr) {
		if constantValue := c.info.Types[value].Value; constantValue != nil && constantValue.Kind() == constant.String {
			places = append(places, c.set.Position(value.Pos()).String())
		}
	}
	for _, file := range c.files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for i, left := range n.Lhs {
					if field, is := left.(*ast.SelectorExpr); is && field.Sel.Name == "Reason" &&
						len(n.Lhs) == len(n.Rhs) {
						note(n.Rhs[i])
					}
				}
			case *ast.KeyValueExpr:
				if key, is := n.Key.(*ast.Ident); is && key.Name == "Reason" {
					note(n.Value)
				}
			}
			return true
		})
	}
	return places
}

// TestReasonsAreComplete: every reason that the rules can write into the history is in
// lock.EndReasons, in wire.Reason and in the document.
func TestReasonsAreComplete(t *testing.T) {
	rules := checkSource(t, "../lock")
	written := rules.words("EndReason")
	if len(written) < 4 {
		t.Errorf("only %d reasons found: %q", len(written), written)
	}
	if places := rules.constantReasons(); len(places) > 0 {
		t.Errorf("reasons that are not an EndReason: %q", places)
	}
	var listed []string
	for _, reason := range lock.EndReasons() {
		listed = append(listed, string(reason))
	}
	slices.Sort(listed)
	if diff := cmp.Diff(written, listed); diff != "" {
		t.Error("lock.EndReasons (-written by the rules +listed):\n" + diff)
	}
	if diff := cmp.Diff(written, checkSource(t, "../wire").words("Reason")); diff != "" {
		t.Error("wire.Reason (-written by the rules +in package wire):\n" + diff)
	}

	doc, err := document()
	if err != nil {
		t.Fatal(err)
	}
	field := doc.Components.Schemas["Event"].Value.Properties["reason"].Value.Description
	operation := doc.Paths.Value("/locks/history").Get.Description
	for _, reason := range written {
		if !strings.Contains(field, reason) || !strings.Contains(operation, "`"+reason+"`") {
			t.Errorf("the document does not explain the reason %s", reason)
		}
	}
}
