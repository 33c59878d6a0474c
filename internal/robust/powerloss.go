package robust

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Disk is a folder for a SQLite database that can lose power. Programs that run with the
// disk's settings write to its files. What they write is on the disk once the file is
// synced with fsync. The name of a new file is on the disk once the folder is synced. The
// rest is lost with the power. Files that SQLite does not write are not kept.
type Disk struct {
	folder string // the files as programs see them
	synced string // what is on the disk, as testdata/powerloss.c maintains it
	shim   string
}

// sector is the number of bytes that a disk writes completely or not at all.
const sector = 512

// NewDisk makes an empty disk that ends with the test. It needs gcc.
func NewDisk(tb testing.TB) *Disk {
	tb.Helper()
	home := tb.TempDir()
	d := &Disk{
		folder: filepath.Join(home, "folder"),
		synced: filepath.Join(home, "disk"),
		shim:   filepath.Join(home, "powerloss.so"),
	}
	d.empty(tb)
	cc := exec.Command("gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", d.shim,
		"testdata/powerloss.c", "-ldl")
	if out, err := cc.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", cc, err, out)
	}
	return d
}

// DatabaseURL returns the URL of a SQLite database on the disk.
func (d *Disk) DatabaseURL() string { return "sqlite:///" + filepath.Join(d.folder, "locks.db") }

// Settings returns the environment variables that a program on the disk needs.
func (d *Disk) Settings() []string {
	return []string{"LD_PRELOAD=" + d.shim, "POWERLOSS_FOLDER=" + d.folder, "POWERLOSS_DISK=" + d.synced}
}

// Crash cuts the power: only what was synced remains. The programs on the disk must have
// been killed. With rng, a random part of the rest remains as well: single sectors, a
// part of a file's new length, the new name of a file, or its deletion.
func (d *Disk) Crash(tb testing.TB, rng *rand.Rand) {
	tb.Helper()
	left := map[string][]byte{}
	names := append(d.names(tb, d.synced), d.names(tb, filepath.Join(d.synced, "new"))...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if content, there := d.afterCrash(tb, name, rng); there {
			left[name] = content
		}
	}
	d.empty(tb)
	for name, content := range left {
		for _, folder := range []string{d.folder, d.synced} {
			must(tb, os.WriteFile(filepath.Join(folder, name), content, 0o600))
		}
	}
}

// afterCrash returns the content of a file after the power was cut, and whether the file
// exists.
func (d *Disk) afterCrash(tb testing.TB, name string, rng *rand.Rand) (content []byte, there bool) {
	tb.Helper()
	chance := func() bool { return rng != nil && rng.IntN(2) == 0 }
	seen, exists := read(tb, filepath.Join(d.folder, name))
	unnamed, isNew := read(tb, filepath.Join(d.synced, "new", name))
	synced, wasThere := read(tb, filepath.Join(d.synced, name))
	switch {
	case isNew && chance():
		return mixed(unnamed, seen, rng), true
	case isNew: // an older file of the same name may have been deleted before
		return synced, wasThere
	case exists:
		return mixed(synced, seen, rng), true
	default:
		return synced, !chance()
	}
}

// mixed returns a synced file with a random part of what was written since.
func mixed(synced, seen []byte, rng *rand.Rand) []byte {
	if rng == nil || bytes.Equal(synced, seen) {
		return synced
	}
	shorter, longer := min(len(synced), len(seen)), max(len(synced), len(seen))
	content := make([]byte, shorter+rng.IntN(longer-shorter+1))
	copy(content, synced)
	share := rng.Float64()
	for from := 0; from < min(len(content), len(seen)); from += sector {
		if rng.Float64() < share {
			copy(content[from:min(from+sector, len(content))], seen[from:])
		}
	}
	return content
}

func (d *Disk) names(tb testing.TB, folder string) (names []string) {
	tb.Helper()
	entries, err := os.ReadDir(folder)
	must(tb, err)
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasSuffix(e.Name(), "-shm") {
			names = append(names, e.Name())
		}
	}
	return names
}

func (d *Disk) empty(tb testing.TB) {
	tb.Helper()
	must(tb, errors.Join(os.RemoveAll(d.folder), os.RemoveAll(d.synced),
		os.MkdirAll(d.folder, 0o700), os.MkdirAll(filepath.Join(d.synced, "new"), 0o700)))
}

func read(tb testing.TB, path string) (content []byte, exists bool) {
	tb.Helper()
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Fatal(err)
	}
	return content, err == nil
}
