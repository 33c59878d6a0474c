package archtest_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// maxLines is the maximum length of a Go file. A longer one has more than one subject.
const maxLines = 500

func TestFilesAreShort(t *testing.T) {
	t.Parallel()
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if lines := bytes.Count(text, []byte("\n")); lines > maxLines {
			t.Errorf("%s has %d lines, want at most %d: split it by subject", path, lines, maxLines)
		}
		files++
		return err
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files read, %v", files, err)
	}
}

// maxBytes is the maximum size of a file in the repository. A larger one is probably a
// program that was added by mistake.
const maxBytes = 1 << 20

func TestNoFileIsLarge(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z")
	cmd.Dir = root
	list, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	files := strings.Split(strings.Trim(string(list), "\x00"), "\x00")
	if len(files) < 100 {
		t.Errorf("only %d files in the repository", len(files))
	}
	for _, file := range files {
		info, err := os.Stat(filepath.Join(root, file))
		if errors.Is(err, fs.ErrNotExist) { // deleted, and not committed yet
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > maxBytes && !strings.HasSuffix(file, "redoc.standalone.js") {
			t.Errorf("%s has %d bytes, want at most %d", file, info.Size(), maxBytes)
		}
	}
}

// The table of packages in ARCHITECTURE.md is complete.
func TestArchitectureListsEveryPackage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## Packages\n")
	for _, p := range packages(t) {
		if !strings.Contains(table, "`"+p.path()+"`") && !strings.Contains(p.path(), "/testdata/") {
			t.Errorf("the table of packages does not list %s", p.path())
		}
	}
}
