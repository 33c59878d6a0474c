//go:build !unix

package config

import "io/fs"

// owner returns "?": file owners are supported on Unix only.
func owner(fs.FileInfo) string { return "?" }
