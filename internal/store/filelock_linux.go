package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// hardLinks returns the number of names (hard links) of a file.
func hardLinks(file fs.FileInfo) int {
	if stat, ok := file.Sys().(*syscall.Stat_t); ok {
		return int(stat.Nlink)
	}
	return 1
}

// errLocked: another process, or another part of this one, has locked the file.
var errLocked = unix.EWOULDBLOCK

// lockExclusively locks a file until it is closed. On Linux this lock is independent of
// those of SQLite.
func lockExclusively(file *os.File) error {
	return unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// isMountPoint reports whether the kernel says that the path itself is a mount point.
func isMountPoint(path string) bool {
	var s unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, 0, &s)
	return err == nil && s.Attributes&s.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// writable returns nil if this process may write a file, or create files in a folder.
func writable(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS)
}

// enterable returns nil if this process may open files in a folder.
func enterable(folder string) error {
	return unix.Faccessat(unix.AT_FDCWD, folder, unix.X_OK, unix.AT_EACCESS)
}

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

// permissions returns the owner of a file, its mode, and the user of this process.
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
