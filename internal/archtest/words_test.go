package archtest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// word is a line of .ci/words.
type word struct {
	pattern *regexp.Regexp
	better  string
}

// Texts use the words of the trade: .ci/words lists what they avoid.
func TestWords(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, ".ci", "words"))
	if err != nil {
		t.Fatal(err)
	}
	words, err := parseWords(text)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case entry.IsDir():
			return nil
		}
		isGo := filepath.Ext(path) == ".go"
		if !isGo && filepath.Ext(path) != ".md" {
			return nil
		}
		files++
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		found := misuses(words, name, content, 1)
		if isGo {
			if found, err = misusesInGo(words, name, content); err != nil {
				return err
			}
		}
		for _, misuse := range found {
			t.Error(misuse)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 || len(words) < 5 {
		t.Errorf("only %d files and %d words found", files, len(words))
	}
}

func TestWordsAreFound(t *testing.T) {
	t.Parallel()
	words, err := parseWords([]byte("# comment\n\ngrey cats?\tcats\nfoo|bar\tbaz\n"))
	if err != nil {
		t.Fatal(err)
	}
	markdown := misuses(words, "x.md", []byte("A Grey\ncat.\n\n- grey  cats\n- greycat, foot, rebar\n> Foo\n"), 1)
	wantMarkdown := []string{
		`x.md:1: "Grey cat": write cats`,
		`x.md:4: "grey cats": write cats`,
		`x.md:6: "Foo": write baz`,
	}
	if diff := cmp.Diff(wantMarkdown, markdown); diff != "" {
		t.Errorf("misuses in Markdown (-want +got):\n%s", diff)
	}
	const source = `// Package p has no grey
// cat.
package p

/* a
   foo */
var bar = "grey cat" // a bar
var s = ` + "`grey\ncats`" + `
`
	code, err := misusesInGo(words, "x.go", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	wantCode := []string{
		`x.go:7: "grey cat": write cats`,
		`x.go:8: "grey cats": write cats`,
		`x.go:1: "grey cat": write cats`,
		`x.go:6: "foo": write baz`,
		`x.go:7: "bar": write baz`,
	}
	if diff := cmp.Diff(wantCode, code); diff != "" {
		t.Errorf("misuses in Go (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"no tab", "(\tunbalanced"} {
		if _, err := parseWords([]byte(bad)); err == nil {
			t.Errorf("the line %q is accepted", bad)
		}
	}
}

// between is what may separate two words of a text: white space, and where a line ends
// the marks with which the next one begins.
const between = `\s+(?:(?://|\*|>|#)\s*)?`

func parseWords(text []byte) (words []word, err error) {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if lines.Text() == "" || strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		expression, better, ok := strings.Cut(lines.Text(), "\t")
		if !ok {
			return nil, fmt.Errorf("no tab in %q", lines.Text())
		}
		pattern, err := regexp.Compile(`(?i)\b(?:` + strings.ReplaceAll(expression, " ", between) + `)\b`)
		if err != nil {
			return nil, err
		}
		words = append(words, word{pattern, better})
	}
	return words, nil
}

// misuses returns where a text that begins at a line of a file has words to avoid.
func misuses(words []word, file string, text []byte, line int) (found []string) {
	for _, w := range words {
		for _, at := range w.pattern.FindAllIndex(text, -1) {
			used := regexp.MustCompile(between).ReplaceAll(text[at[0]:at[1]], []byte(" "))
			found = append(found, fmt.Sprintf("%s:%d: %q: write %s",
				file, line+bytes.Count(text[:at[0]], []byte("\n")), used, w.better))
		}
	}
	return found
}

// misusesInGo returns where the comments and strings of a Go file have words to avoid.
func misusesInGo(words []word, file string, source []byte) (found []string, err error) {
	positions := token.NewFileSet()
	parsed, err := parser.ParseFile(positions, file, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	ast.Inspect(parsed, func(node ast.Node) bool {
		if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			found = append(found, misuses(words, file, []byte(literal.Value), positions.Position(literal.Pos()).Line)...)
		}
		return true
	})
	for _, group := range parsed.Comments {
		start, end := positions.Position(group.Pos()), positions.Position(group.End())
		found = append(found, misuses(words, file, source[start.Offset:end.Offset], start.Line)...)
	}
	return found, nil
}
