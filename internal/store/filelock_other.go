//go:build !linux

package store

import (
	"errors"
	"io/fs"
	"os"
)

// hardLinks returns 1: the number is only read on Linux.
func hardLinks(fs.FileInfo) int { return 1 }

var errLocked = errors.New("locked by another process")

// lockExclusively does nothing: on some systems flock(2) conflicts with the locks of
// SQLite, so only the file beside the database is locked.
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
