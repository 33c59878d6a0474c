package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot reads CLOCK_BOOTTIME: it cannot be set, and it counts while the machine is suspended.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("CLOCK_BOOTTIME: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return time.Duration(t.Nano())
}

// bootID names the time since the machine was booted, for which sinceBoot grows; empty when that is not known. A container
// may have a boot clock of its own, which is off by what the second file says.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	offsets, err := os.ReadFile("/proc/self/timens_offsets")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without time namespaces
		return ""
	}
	return strings.Join(strings.Fields(string(id)+string(offsets)), " ")
}

// names is how many names (hard links) a file has.
func names(file fs.FileInfo) int {
	if stat, ok := file.Sys().(*syscall.Stat_t); ok {
		return int(stat.Nlink)
	}
	return 1
}

// errLocked: another process, or another part of this one, has locked the file.
var errLocked = unix.EWOULDBLOCK

// lockExclusively locks a file until it is closed. On Linux this lock has nothing to do with those of SQLite.
func lockExclusively(file *os.File) error {
	return unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// isMountPoint reports whether something is mounted on the path itself, as far as the kernel says so.
func isMountPoint(path string) bool {
	var s unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, 0, &s)
	return err == nil && s.Attributes&s.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// writable returns nil when this process may write a file, or make files in a folder.
func writable(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS)
}

// enterable returns nil when this process may look for files in a folder.
func enterable(folder string) error {
	return unix.Faccessat(unix.AT_FDCWD, folder, unix.X_OK, unix.AT_EACCESS)
}

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

// permissions says who owns a file, its mode, and as whom this process would use it.
func permissions(path string) string {
	process := "this server runs as " + userName(os.Geteuid())
	info, err := os.Stat(path)
	if err != nil {
		return process
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return process
	}
	return fmt.Sprintf("its owner is %s, its mode %v, and %s", userName(int(stat.Uid)), info.Mode(), process)
}

func userName(id int) string {
	number := strconv.Itoa(id)
	if account, err := user.LookupId(number); err == nil {
		return fmt.Sprintf("%s (uid %s)", account.Username, number)
	}
	return "uid " + number
}
