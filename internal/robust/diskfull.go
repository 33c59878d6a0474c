package robust

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// SmallDisk is a file system that a test can fill. It is in memory, in a mount namespace
// of its own. Only programs that Program returns see it.
type SmallDisk struct {
	folder string    // its path in that namespace
	root   string    // its path for this process
	holder *exec.Cmd // keeps the namespace
	enter  string    // options of nsenter
}

// NewSmallDisk makes a disk with the given size that ends with the test. It needs Linux
// with namespaces, and util-linux.
func NewSmallDisk(tb testing.TB, bytes int) *SmallDisk {
	tb.Helper()
	d := &SmallDisk{folder: tb.TempDir(), enter: "--mount"}
	d.holder = exec.Command("sh", "-c", `mount -t tmpfs -o size="$1" none "$0" && echo mounted && exec cat`,
		d.folder, fmt.Sprint(bytes))
	// The runtime makes mounts of a new namespace private, so that no other process sees
	// this mount.
	d.holder.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		d.holder.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		d.holder.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		d.holder.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		d.enter = "--user --preserve-credentials --mount"
	}
	d.holder.Stderr = os.Stderr
	input, err := d.holder.StdinPipe()
	must(tb, err)
	output, err := d.holder.StdoutPipe()
	must(tb, err)
	const needs = "a disk that can be full needs a mount namespace: be root, or let users have namespaces " +
		"(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, " +
		"kernel.apparmor_restrict_unprivileged_userns)"
	if err := d.holder.Start(); err != nil {
		tb.Fatalf("%s: %v", needs, err)
	}
	tb.Cleanup(func() {
		must(tb, input.Close())
		_ = d.holder.Wait() // it ends by itself when its input ends
	})
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		tb.Fatal(needs)
	}
	d.root = filepath.Join("/proc", fmt.Sprint(d.holder.Process.Pid), "root", d.folder)
	return d
}

// Program returns the path of a script that runs the program in the namespace of the
// disk.
func (d *SmallDisk) Program(tb testing.TB, program string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "program")
	script := fmt.Sprintf("#!/bin/sh\nexec nsenter --target %d %s -- '%s'\n", d.holder.Process.Pid, d.enter, program)
	must(tb, os.WriteFile(path, []byte(script), 0o700))
	return path
}

// Folder returns the path of the disk for these programs.
func (d *SmallDisk) Folder() string { return d.folder }

// Run runs a program to its end in the namespace of the disk.
func (d *SmallDisk) Run(tb testing.TB, program string, args ...string) {
	tb.Helper()
	args = slices.Concat(strings.Fields(d.enter), []string{"--", program}, args)
	cmd := exec.Command("nsenter", append([]string{"--target", fmt.Sprint(d.holder.Process.Pid)}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

// DatabaseURL returns the URL of a SQLite database on the disk.
func (d *SmallDisk) DatabaseURL() string { return "sqlite:///" + filepath.Join(d.folder, "locks.db") }

// Fill fills the disk except for at most the given number of bytes.
func (d *SmallDisk) Fill(tb testing.TB, free int64) {
	tb.Helper()
	ballast, err := os.Create(d.ballast())
	must(tb, err)
	size, err := io.Copy(ballast, zeros{}) // until there is no space left
	if err == nil {
		tb.Fatal("the small disk did not become full")
	}
	must(tb, ballast.Truncate(max(0, size-free)))
	must(tb, ballast.Close())
}

// Free undoes Fill.
func (d *SmallDisk) Free(tb testing.TB) {
	tb.Helper()
	must(tb, os.Remove(d.ballast()))
}

func (d *SmallDisk) ballast() string { return filepath.Join(d.root, "ballast") }

// zeros is an endless file.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
