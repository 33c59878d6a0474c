package archtest_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"resource-lock-manager/docs"
	"resource-lock-manager/internal/version"
)

// The changelog, both programs and the OpenAPI document state the same version.
func TestVersionsAgree(t *testing.T) {
	t.Parallel()
	changelog, err := os.ReadFile(filepath.Join(root, "docs", "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	releases := regexp.MustCompile(`(?m)^## \[(\d+\.\d+\.\d+)\]`).FindSubmatch(changelog)
	if releases == nil {
		t.Fatal("docs/CHANGELOG.md has no heading of a release")
	}
	if newest := string(releases[1]); newest != version.Number {
		t.Errorf("the newest release in docs/CHANGELOG.md is %s, internal/version has %s", newest, version.Number)
	}
	var document struct{ Info struct{ Version string } }
	if err := json.Unmarshal([]byte(docs.OpenAPI), &document); err != nil {
		t.Fatal(err)
	}
	if document.Info.Version != version.Number {
		t.Errorf(`docs/openapi.json has the version %s, want %s: run "make generate"`, document.Info.Version, version.Number)
	}
	for program, flag := range map[string]string{"lockd": "-version", "lockctl": "--version"} {
		cmd := exec.CommandContext(t.Context(), "go", "run", "./cmd/"+program, flag)
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", cmd, err)
		}
		name, number, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
		release, _, _ := strings.Cut(number, "+")
		if name != program || release != version.Number {
			t.Errorf("%v prints %q, want the version %s", cmd, out, version.Number)
		}
	}
}
