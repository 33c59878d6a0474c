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
	// Editors on Windows begin a file so.
	content = bytes.TrimPrefix(content, []byte("\ufeff"))
	values, ok := parse(content)
	if !ok {
		return nil, fmt.Errorf("settings file %s, line %d: want NAME=value, a closing quote for each opening one, comments after #",
			absolute(path), badLine(content))
	}
	return values, nil
}

// parse is not ok for content that is no list of variables. The words of godotenv are of no use:
// they quote the file, passwords included.
func parse(content []byte) (map[string]string, bool) {
	values, err := godotenv.UnmarshalBytes(content)
	// A last line that is only a word makes godotenv report a variable without a name instead of an error.
	_, nameless := values[""]
	return values, err == nil && !nameless
}

// longestValue is the maximum number of lines of a value in quotes that badLine reckons with.
const longestValue = 100

// badLine is the number of the line after the longest part, from the beginning of content, that can
// be parsed. A part that ends within a value in quotes cannot, which proves nothing.
func badLine(content []byte) int {
	good, end := 0, 0
	for n := 1; n <= good+longestValue; n++ {
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

// unreadable says which file cannot be read and why, and whose it is where that is the reason.
func unreadable(path string, err error) error {
	reason := err
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		reason = e.Err
	}
	if !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s: %w", absolute(path), reason)
	}
	// What may not even be looked at is in a folder that may not be entered.
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

// absolute is the whole path, if the working directory still exists.
func absolute(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path
}
