//go:build unix

package config

import (
	"io/fs"
	"syscall"
)

// owner returns the name of the user that owns a file.
func owner(file fs.FileInfo) string {
	if stat, ok := file.Sys().(*syscall.Stat_t); ok {
		return userName(int(stat.Uid))
	}
	return "?"
}
