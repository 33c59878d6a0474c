package archtest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const (
	module = "resource-lock-manager"
	root   = "../.."
)

// mayImport lists every package that is not test support, and the packages of this module
// that it may import.
var mayImport = map[string][]string{
	"client":          {"internal/wire"},
	"client/locktest": {"client", "internal/api", "internal/lock", "internal/memstore", "internal/service"},
	"cmd/lockbench":   {"internal/api", "internal/lock", "internal/service"},
	"cmd/lockctl":     {"client", "internal/version", "internal/wire"},
	"cmd/lockd":       {"internal/app", "internal/config", "internal/logbuffer", "internal/version"},
	"docs":            {},
	"internal/api":    {"docs", "internal/lock", "internal/service", "internal/wire"},
	"internal/app": {
		"internal/api", "internal/config", "internal/lock", "internal/notify", "internal/service", "internal/store",
		"internal/sweep",
	},
	"internal/config":      {},
	"internal/groupcommit": {},
	"internal/lifecycle":   {},
	"internal/lock":        {},
	"internal/logbuffer":   {},
	"internal/memstore":    {"internal/lock", "internal/service"},
	"internal/notify":      {"internal/lifecycle"},
	"internal/openapigen":  {"internal/version", "internal/wire"},
	"internal/service":     {"internal/lifecycle", "internal/lock"},
	"internal/store":       {"internal/groupcommit", "internal/lifecycle", "internal/lock", "internal/service", "migrations"},
	"internal/sweep":       {"internal/lifecycle"},
	"internal/version":     {},
	"internal/wire":        {},
	"migrations":           {},
}

// testSupport lists the packages that only tests import. They may import every package.
var testSupport = []string{
	"internal/apptest", "internal/archtest", "internal/robust", "internal/storetest", "internal/testdb",
}

// onlyIn lists the packages that may import a library, or a package of the standard library
// that is for tests.
var onlyIn = map[string][]string{
	"gorm.io":                {"internal/store"},
	"github.com/go-chi/chi":  {"internal/api"},
	"github.com/jackc/pgx":   {"internal/config", "internal/notify", "internal/store", "internal/testdb"},
	"github.com/mattn":       {"internal/store"},
	"github.com/caarlos0":    {"internal/config"},
	"github.com/joho":        {"cmd/lockctl", "internal/config"},
	"github.com/swaggo":      {"internal/api"},
	"github.com/spf13":       {"cmd/lockctl"},
	"golang.org/x/term":      {"cmd/lockctl"},
	"github.com/gofrs/flock": {"internal/store"},
	"github.com/hashicorp":   {"internal/store"},
	"github.com/hbollon":     {"internal/api", "internal/config"},
	"github.com/chromedp":    testSupport,
	"testing":                append([]string{"client/locktest"}, testSupport...),
	"net/http/httptest":      testSupport,
}

// standardOnly are the packages that import the standard library and nothing else.
var standardOnly = []string{
	"client", "internal/groupcommit", "internal/lifecycle", "internal/lock", "internal/logbuffer",
	"internal/memstore", "internal/service", "internal/sweep", "internal/version", "internal/wire",
}

// pkg is a package as go list tells it. Imports leaves test files out.
type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
}

// path is the package's folder in the module.
func (p pkg) path() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Doc,Imports", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, &stderr)
	}
	var found []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			return found
		case err != nil:
			t.Fatal(err)
		}
		found = append(found, p)
	}
}

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, p := range packages(t) {
		seen[p.path()] = true
		if slices.Contains(testSupport, p.path()) {
			continue
		}
		allowed, listed := mayImport[p.path()]
		if !listed {
			t.Errorf("%s is not in mayImport: add what it may import", p.path())
			continue
		}
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s, but may import only %q", p.path(), ours, allowed)
			}
		}
	}
	// A rule for a package that is gone or misspelt would guard nothing.
	for path := range mayImport {
		if !seen[path] {
			t.Errorf("mayImport has a rule for %s, which does not exist", path)
		}
	}
}

func TestLibrariesStayInTheirPackages(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			for library, owners := range onlyIn {
				if imported != library && !strings.HasPrefix(imported, library+"/") {
					continue
				}
				used[library] = true
				if !slices.Contains(owners, p.path()) {
					t.Errorf("%s imports %s, which only %q may", p.path(), imported, owners)
				}
			}
			// The paths of the standard library are those without a domain, which this
			// module may have too.
			domain, _, _ := strings.Cut(imported, "/")
			isOurs := strings.HasPrefix(imported, module+"/")
			if slices.Contains(standardOnly, p.path()) && strings.Contains(domain, ".") && !isOurs {
				t.Errorf("%s imports %s, but may use only the standard library", p.path(), imported)
			}
		}
	}
	for library := range onlyIn {
		if !used[library] && strings.Contains(library, ".") {
			t.Errorf("nothing imports %s any more: its rule guards nothing", library)
		}
	}
}

func TestPackagesHaveAComment(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.path())
		}
	}
}
