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

// Disk is a folder for a SQLite database that can lose power. What a program that has the disk's settings writes to its files
// is on the disk once it is synced (fsync), and so is the name of a new file once the folder is. The rest is lost with the
// power. Files that are not written by SQLite are not kept.
type Disk struct {
	folder string // what programs see
	synced string // what is on the disk, as testdata/powerloss.c keeps it
	shim   string
}

// sector is what a disk writes as a whole or not at all.
const sector = 512

// NewDisk makes an empty disk that goes with the test. It needs gcc.
func NewDisk(tb testing.TB) *Disk {
	tb.Helper()
	home := tb.TempDir()
	d := &Disk{
		folder: filepath.Join(home, "folder"),
		synced: filepath.Join(home, "disk"),
		shim:   filepath.Join(home, "powerloss.so"),
	}
	d.empty(tb)
	cc := exec.Command("gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", d.shim, "testdata/powerloss.c", "-ldl")
	if out, err := cc.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", cc, err, out)
	}
	return d
}

// DatabaseURL is that of a SQLite file on the disk.
func (d *Disk) DatabaseURL() string { return "sqlite:///" + filepath.Join(d.folder, "locks.db") }

// Settings that a program on the disk must have in its environment.
func (d *Disk) Settings() []string {
	return []string{"LD_PRELOAD=" + d.shim, "POWERLOSS_FOLDER=" + d.folder, "POWERLOSS_DISK=" + d.synced}
}

// LosePower leaves what was synced. The programs on the disk must have been killed. With luck, any part of the rest is left as
// well: of what a file has that was not synced, each sector or not, more or less of its new length, its name or its deletion.
func (d *Disk) LosePower(tb testing.TB, luck *rand.Rand) {
	tb.Helper()
	left := map[string][]byte{}
	names := append(d.names(tb, d.synced), d.names(tb, filepath.Join(d.synced, "new"))...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if content, there := d.afterPowerLoss(tb, name, luck); there {
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

// afterPowerLoss is a file of which there is something on the disk.
func (d *Disk) afterPowerLoss(tb testing.TB, name string, luck *rand.Rand) (content []byte, there bool) {
	tb.Helper()
	chance := func() bool { return luck != nil && luck.IntN(2) == 0 }
	seen, exists := read(tb, filepath.Join(d.folder, name))
	unnamed, isNew := read(tb, filepath.Join(d.synced, "new", name))
	synced, wasThere := read(tb, filepath.Join(d.synced, name))
	switch {
	case isNew && chance():
		return mixed(unnamed, seen, luck), true
	case isNew: // one of the same name may have been deleted before
		return synced, wasThere
	case exists:
		return mixed(synced, seen, luck), true
	default:
		return synced, !chance()
	}
}

// mixed is a synced file to which some of what was written since has been added.
func mixed(synced, seen []byte, luck *rand.Rand) []byte {
	if luck == nil || bytes.Equal(synced, seen) {
		return synced
	}
	shorter, longer := min(len(synced), len(seen)), max(len(synced), len(seen))
	content := make([]byte, shorter+luck.IntN(longer-shorter+1))
	copy(content, synced)
	share := luck.Float64()
	for from := 0; from < min(len(content), len(seen)); from += sector {
		if luck.Float64() < share {
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
