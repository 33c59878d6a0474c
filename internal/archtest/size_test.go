package archtest_test

import (
	"bytes"
	"io/fs"
	"os"
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
