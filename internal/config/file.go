package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/joho/godotenv"
)

// readFile returns the variables of a .env file.
func readFile(path string) (map[string]string, error) {
	if path == "" {
		return map[string]string{}, nil
	}
	content, err := os.ReadFile(path)
	switch {
	case path == DefaultFile && errors.Is(err, fs.ErrNotExist):
		return map[string]string{}, nil
	case err != nil:
		return nil, fmt.Errorf("settings file %w", unreadable(path, err))
	}
	// Editors on Windows begin a file with a byte order mark.
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	values, ok := parse(content)
	if !ok {
		return nil, fmt.Errorf("settings file %s, line %d: want NAME=value, a closing quote for each opening one, "+
			"comments after #", absolute(path), badLine(content))
	}
	return values, nil
}

// parse returns the variables, or not ok if content is invalid. It drops the error of
// godotenv, which quotes the file with its passwords.
func parse(content []byte) (map[string]string, bool) {
	values, err := godotenv.UnmarshalBytes(content)
	// If the last line is a single word, godotenv returns a variable without a name
	// instead of an error.
	_, nameless := values[""]
	return values, err == nil && !nameless
}

// maxValueLines is the maximum number of lines of a quoted value that badLine supports.
const maxValueLines = 100

// badLine returns the number of the first invalid line: the line after the longest prefix
// of content that parses. A prefix that ends within a quoted value does not parse, so
// badLine also tries longer ones.
func badLine(content []byte) int {
	good, end := 0, 0
	for n := 1; n <= good+maxValueLines; n++ {
		length := bytes.IndexByte(content[end:], '\n') + 1
		if length == 0 {
			break
		}
		end += length
		if _, ok := parse(content[:end]); ok {
			good = n
		}
	}
	return good + 1
}

// unreadable returns an error with the path of the file and the reason. If permission is
// denied, it adds the owner and the mode.
func unreadable(path string, err error) error {
	reason := err
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		reason = e.Err
	}
	if !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s: %w", absolute(path), reason)
	}
	// If stat fails too, a parent directory denies access.
	at := absolute(path)
	info, statErr := os.Stat(at)
	for statErr != nil && at != filepath.Dir(at) {
		at = filepath.Dir(at)
		info, statErr = os.Stat(at)
	}
	return fmt.Errorf("%s: %w: %s belongs to the user %s and has the mode %v, and this program runs as the user %s",
		absolute(path), reason, at, owner(info), info.Mode(), userName(os.Geteuid()))
}

func userName(id int) string {
	if u, err := user.LookupId(strconv.Itoa(id)); err == nil {
		return u.Username
	}
	return strconv.Itoa(id)
}

// absolute returns the absolute path, or path if the working directory does not exist any
// more.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
