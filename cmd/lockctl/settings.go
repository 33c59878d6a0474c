package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/joho/godotenv"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"resource-lock-manager/client"
)

const (
	defaultURL           = "http://localhost:8000"
	defaultServerTimeout = 30 * time.Second
	byteOrderMark        = "\ufeff" // editors on Windows begin a file with it

	nameURL       = "LOCKCTL_URL"
	nameProcessID = "LOCKCTL_PROCESS_ID"
	nameConfig    = "LOCKCTL_CONFIG"
)

// settings are the common settings of the commands, from flags, the environment and the
// file.
type settings struct {
	urls          string
	urlsFrom      string // the name of the flag or variable, for errors
	processID     string // empty: not set
	serverTimeout time.Duration
}

// load reads the settings that were not given as flags from the environment and the file.
func (p *program) load(cmd *cobra.Command) error {
	file, values, err := p.readConfig()
	if err != nil {
		return &exitError{exitConfig, err}
	}
	s := &p.settings
	switch {
	case cmd.Flags().Changed("url"):
		s.urlsFrom = "--url"
	case p.getenv(nameURL) != "":
		s.urls, s.urlsFrom = p.getenv(nameURL), nameURL
	case values[nameURL] != "":
		s.urls, s.urlsFrom = values[nameURL], file+": "+nameURL
	default:
		s.urls = defaultURL
	}
	if s.processID = p.getenv(nameProcessID); s.processID == "" {
		s.processID = values[nameProcessID]
	}
	if !utf8.ValidString(s.processID) {
		return &exitError{exitConfig, fmt.Errorf("%s: %q is not UTF-8", nameProcessID, s.processID)}
	}
	return nil
}

// readConfig returns the path and the variables of the settings file.
func (p *program) readConfig() (string, map[string]string, error) {
	file := p.getenv(nameConfig)
	named := file != ""
	if !named {
		dir, err := os.UserConfigDir()
		if err != nil { // there is no such directory, as for a service without a home
			return "", nil, nil
		}
		file = filepath.Join(dir, "lockctl", "config")
	}
	content, err := os.ReadFile(file)
	switch {
	case !named && errors.Is(err, fs.ErrNotExist):
		return "", nil, nil
	case err != nil:
		if cause, is := errors.AsType[*fs.PathError](err); is {
			err = cause.Err
		}
		return "", nil, fmt.Errorf("settings file %s: %w", file, err)
	}
	content = bytes.TrimPrefix(content, []byte(byteOrderMark))
	values, ok := parseConfig(content)
	if !ok {
		return "", nil, fmt.Errorf("settings file %s, line %d: want NAME=value, a closing quote for each opening one, "+
			"comments after #", file, badLine(content))
	}
	for name := range values {
		if strings.HasPrefix(name, "LOCKCTL_") && !slices.Contains([]string{nameURL, nameProcessID}, name) {
			return "", nil, fmt.Errorf("settings file %s: unknown setting %s, want %s or %s",
				file, name, nameURL, nameProcessID)
		}
	}
	return file, values, nil
}

// parseConfig returns the variables, or not ok if content is invalid. It drops the error
// of godotenv, which quotes the file with its passwords.
func parseConfig(content []byte) (map[string]string, bool) {
	values, err := godotenv.UnmarshalBytes(content)
	// If the last line is a single word, godotenv returns a variable without a name
	// instead of an error.
	_, nameless := values[""]
	return values, err == nil && !nameless
}

// badLine returns the number of the first invalid line: the line after the longest prefix
// of content that parses.
func badLine(content []byte) int {
	good, end := 0, 0
	for n := 1; ; n++ {
		length := bytes.IndexByte(content[end:], '\n') + 1
		if length == 0 {
			return good + 1
		}
		end += length
		if _, ok := parseConfig(content[:end]); ok {
			good = n
		}
	}
}

// client returns a client of the service at the URLs of the settings.
func (p *program) client(o client.Options) (*client.Client, error) {
	o.ServerTimeout = p.settings.serverTimeout
	c, err := client.New(p.settings.urls, o)
	if err == nil {
		return c, nil
	}
	text := strings.TrimPrefix(err.Error(), "lock client: ")
	if strings.Contains(p.settings.urls, "@") { // the error may contain a part of a password
		text = "want http://HOST:PORT or https://HOST:PORT, or several, separated by commas"
	}
	code := exitConfig
	if p.settings.urlsFrom == "--url" {
		code = exitUsage
	}
	return nil, &exitError{code, fmt.Errorf("%s: %s", p.settings.urlsFrom, text)}
}

// defaultProcessID returns the process ID of all commands but run. It is the same for
// each call of lockctl, so that one call can release the lock of another.
func defaultProcessID(p *program) string {
	if p.settings.processID != "" {
		return p.settings.processID
	}
	name := p.getenv("USER")
	if name == "" {
		name = "unknown"
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return name + "@" + host
}

// durationVar defines a flag for a duration. The value must have a unit and must not be
// negative.
func durationVar(flags *pflag.FlagSet, to *time.Duration, name string, value time.Duration, usage string) {
	*to = value
	flags.Var((*duration)(to), name, usage)
}

// duration is the value of a flag.
type duration time.Duration

func (d *duration) Set(text string) error {
	value, err := parseDuration(text)
	if err == nil {
		*d = duration(value)
	}
	return err
}

// String returns "0" for no duration. pflag does not show such a default.
func (d *duration) String() string {
	if *d == 0 {
		return "0"
	}
	return shortDuration(time.Duration(*d))
}

func (*duration) Type() string { return "duration" }

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || text == "0" {
		return 0, errors.New("want a number with a unit: 500ms, 90s, 5m, 2h")
	}
	return d, nil
}

// count is the value of a flag: a positive number.
type count int

func (c *count) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return errors.New("want a whole number, 1 or more")
	}
	*c = count(n)
	return nil
}

func (c *count) String() string { return strconv.Itoa(int(*c)) }

func (*count) Type() string { return "number" }
