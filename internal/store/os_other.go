//go:build !linux

package store

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

var processStart = time.Now()

// sinceBoot is Go's monotonic clock, which on some systems stands still while the machine is suspended.
func sinceBoot() time.Duration { return time.Since(processStart) }

// bootID is empty: sinceBoot does not go on when the process ends.
func bootID() string { return "" }

// names is how many names a file has, which is only looked up on Linux.
func names(fs.FileInfo) int { return 1 }

var errLocked = errors.New("locked by another process")

// lockExclusively does nothing: where flock is one with the locks of SQLite, the file beside the database must do.
func lockExclusively(*os.File) error { return nil }

func isMountPoint(string) bool { return false }

func writable(string) error { return nil }

func enterable(string) error { return nil }

func isReadOnly(error) bool { return false }

func permissions(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "its mode is not known"
	}
	return "its mode is " + info.Mode().String()
}
