//go:build unix

package config

import (
	"io/fs"
	"syscall"
)

// owner is the name of the user that a file belongs to.
func owner(file fs.FileInfo) string {
	if stat, ok := file.Sys().(*syscall.Stat_t); ok {
		return userName(int(stat.Uid))
	}
	return "?"
}
