// Package config reads the settings of the server.
//
// A setting comes from the environment, or else from a .env file, or else from its
// default. .env.example lists all settings. An empty variable counts as unset, so an
// empty variable of the environment does not replace the file's value. Unknown variables
// are ignored, with one exception: a name in the file that is similar to a setting's name
// is an error.
//
// Load returns either settings that are all within their limits, or an error that names
// every invalid setting. No error contains the password of the database. Neither does a
// Config that slog logs, that fmt prints with %v, %+v or %#v, or that is encoded as JSON.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/hbollon/go-edlib"
)

// longestTTL is the upper limit of MAX_TTL. It is also the longest TTL that the lock
// rules support.
const longestTTL = 36525 * 24 * time.Hour

// LogFormat is the format of log records.
type LogFormat string

// The formats of log records.
const (
	LogText LogFormat = "text" // key=value pairs
	LogJSON LogFormat = "json" // one JSON object per line
)

// Config holds every setting. The tags are its environment variable and its default.
type Config struct {
	// Database is where the locks are stored. ParseDatabaseURL documents the URLs.
	Database Database `env:"DATABASE_URL" envDefault:"sqlite:///./resource_locks.db"`
	// Host is the name or IP address to listen on.
	Host string `env:"HOST" envDefault:"127.0.0.1"`
	// Port is the TCP port to listen on, 0 to 65535. 0 means any free port.
	Port int `env:"PORT" envDefault:"8000"`
	// LogLevel is the least severe level that is logged: debug, info, warn or error.
	LogLevel slog.Level `env:"LOG_LEVEL" envDefault:"info"`
	// LogFormat is LogText or LogJSON.
	LogFormat LogFormat `env:"LOG_FORMAT" envDefault:"text"`
	// SweepInterval is the maximum time until the expiry of a lock is recorded in the
	// history; above zero.
	SweepInterval time.Duration `env:"SWEEP_INTERVAL" envDefault:"1s"`
	// IdleRetention is how long a resource must not have been held before its row is
	// deleted; above zero.
	IdleRetention time.Duration `env:"IDLE_RETENTION" envDefault:"168h"`
	// HistoryRetention is how long events stay in the history; above zero.
	HistoryRetention time.Duration `env:"HISTORY_RETENTION" envDefault:"720h"`
	// MaxTTL is the maximum TTL of a request; above zero, at most 36525 days. With a
	// lower value, locks that never expire are not allowed.
	MaxTTL time.Duration `env:"MAX_TTL" envDefault:"876600h"`
	// DefaultTTL is the TTL of a request without a TTL, at most MaxTTL. 0 means that its
	// lock never expires.
	DefaultTTL time.Duration `env:"DEFAULT_TTL" envDefault:"0s"`
	// MaxWait is the maximum time that a request may wait for a lock; above zero.
	MaxWait time.Duration `env:"MAX_WAIT" envDefault:"300s"`
	// MaxWaiters is the maximum number of requests that wait for locks on this server; at
	// least 1.
	MaxWaiters int `env:"MAX_WAITERS" envDefault:"50000"`
	// MaxWaitersPerResource is the maximum number of requests that wait for one lock, on
	// all servers together; at least 1.
	MaxWaitersPerResource int `env:"MAX_WAITERS_PER_RESOURCE" envDefault:"10000"`
	// KeepPlace is how long the place of a disconnected request is kept for a retry with
	// the same request_id; above zero.
	KeepPlace time.Duration `env:"KEEP_PLACE" envDefault:"10s"`
	// Notifications makes the servers of one Postgres database notify each other by
	// LISTEN and NOTIFY. Without it, a hand-over to another server is delayed by up to
	// RecheckInterval.
	Notifications bool `env:"NOTIFICATIONS" envDefault:"true"`
	// RecheckInterval is how often a server checks for waiters whose turn has come, in
	// case a notification was lost; above zero.
	RecheckInterval time.Duration `env:"RECHECK_INTERVAL" envDefault:"1s"`
	// MaxQueue is the maximum number of commands that wait for the database. Further
	// requests are answered 503. At least 1.
	MaxQueue int `env:"MAX_QUEUE" envDefault:"8192"`
	// ShutdownTimeout is how long running requests may take after the server was signaled
	// to stop; above zero.
	ShutdownTimeout time.Duration `env:"SHUTDOWN_TIMEOUT" envDefault:"30s"`
}

// DefaultFile is the settings file that need not exist.
const DefaultFile = ".env"

// Load reads the settings from environ, in the format of os.Environ, and from the .env
// file at envFile, if envFile is not empty. The environment has precedence. It returns an
// error if the file cannot be read, or does not exist and is not DefaultFile. Otherwise
// the error has one line for each invalid setting, in the order of Config.
func Load(environ []string, envFile string) (Config, error) {
	inFile, err := readFile(envFile)
	if err != nil {
		return Config{}, err
	}
	values, sources := maps.Clone(inFile), map[string]string{}
	for name := range inFile {
		sources[name] = name + " in " + absolute(envFile)
	}
	for _, entry := range environ {
		if name, value, _ := strings.Cut(entry, "="); value != "" {
			values[name], sources[name] = value, name
		}
	}
	// The env package would assign a variable without a name to the untagged fields of
	// Database.
	delete(values, "")

	c, err := env.ParseAsWithOptions[Config](env.Options{Environment: values})
	faults, err := c.faults(values, sources, err)
	if err != nil {
		return Config{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(inFile)) {
		if meant := misspelt(name); meant != "" {
			faults = append(faults, fmt.Errorf("%s in %s: there is no such setting: write %s, or remove it",
				name, absolute(envFile), meant))
		}
	}
	if len(faults) > 0 {
		return Config{}, errors.Join(faults...)
	}
	return c, nil
}

// Address returns host and port in the format of net.Listen.
func (c Config) Address() string {
	return net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
}

// faults returns an error for each invalid setting. values holds the texts of the
// settings by variable, sources where each of them comes from, and parseErr is the error
// of the env package.
func (c Config) faults(values, sources map[string]string, parseErr error) ([]error, error) {
	unparsed := map[string]error{}
	if parseErr != nil {
		aggregate, ok := errors.AsType[env.AggregateError](parseErr)
		if !ok {
			return nil, parseErr
		}
		for _, err := range aggregate.Errors {
			parse, ok := errors.AsType[env.ParseError](err)
			if !ok {
				return nil, err
			}
			field, _ := reflect.TypeFor[Config]().FieldByName(parse.Name)
			unparsed[field.Tag.Get("env")] = parse.Err
		}
	}

	var faults []error
	// The value is not shown, because it may contain a password anywhere.
	if err := unparsed["DATABASE_URL"]; err != nil {
		faults = append(faults, fmt.Errorf("%s: %w%s", sources["DATABASE_URL"], err, wrapping(values["DATABASE_URL"])))
	}
	for _, rule := range c.rules() {
		value, fault := values[rule.variable], rule.fault
		if unparsed[rule.variable] != nil {
			fault = rule.form
		}
		if fault != "" {
			faults = append(faults, fmt.Errorf("%s: %q is %s%s", sources[rule.variable], value, fault, wrapping(value)))
		}
	}
	return faults, nil
}

// wrapping returns a hint to remove the spaces or quotes around a value. A shell removes
// them, but docker's --env-file does not.
func wrapping(value string) string {
	switch {
	case value != strings.TrimSpace(value):
		return "; remove the space around it"
	case len(value) > 1 && value[0] == value[len(value)-1] && strings.ContainsRune("\"'`", rune(value[0])):
		return "; remove the quotes around it"
	}
	return ""
}

// rule is the result of checking one variable.
type rule struct {
	variable string
	form     string // the error if the value does not parse
	fault    string // the error of the parsed value; empty if it is valid
}

func (c Config) rules() []rule {
	const (
		host     = "not a host: want a name or an IP address, without port and brackets"
		port     = "not a port: want a whole number from 0 to 65535"
		level    = "not a log level: want debug, info, warn or error"
		format   = "not a log format: want text or json"
		duration = "not a duration: want a number with its unit, such as 500ms, 10s or 1h30m; a day is 24h"
		positive = "too short: want a duration above zero"
		waiters  = "not a number of waiters: want a whole number from 1 to 2147483647"
		commands = "not a queue length: want a whole number from 1 to 2147483647"
	)
	unless := func(holds bool, fault string) string {
		if holds {
			return ""
		}
		return fault
	}
	maxTTL := unless(c.MaxTTL > 0, positive)
	defaultTTL := unless(c.DefaultTTL >= 0, "too short: want a duration, or 0s for none")
	switch {
	case c.MaxTTL > longestTTL:
		maxTTL = "too long: want at most 876600h"
	case maxTTL == "" && c.DefaultTTL > c.MaxTTL:
		defaultTTL = fmt.Sprintf("above MAX_TTL, which is %v", c.MaxTTL)
	}
	return []rule{
		{"HOST", host, unless(isHost(c.Host), host)},
		{"PORT", port, unless(0 <= c.Port && c.Port <= 65535, port)},
		{"LOG_LEVEL", level, unless(isLevel(c.LogLevel), level)},
		{"LOG_FORMAT", format, unless(c.LogFormat == LogText || c.LogFormat == LogJSON, format)},
		{"SWEEP_INTERVAL", duration, unless(c.SweepInterval > 0, positive)},
		{"IDLE_RETENTION", duration, unless(c.IdleRetention > 0, positive)},
		{"HISTORY_RETENTION", duration, unless(c.HistoryRetention > 0, positive)},
		{"MAX_TTL", duration, maxTTL},
		{"DEFAULT_TTL", duration, defaultTTL},
		{"MAX_WAIT", duration, unless(c.MaxWait > 0, positive)},
		{"MAX_WAITERS", waiters, unless(c.MaxWaiters >= 1, waiters)},
		{"MAX_WAITERS_PER_RESOURCE", waiters, unless(c.MaxWaitersPerResource >= 1, waiters)},
		{"KEEP_PLACE", duration, unless(c.KeepPlace > 0, positive)},
		{"NOTIFICATIONS", "not a switch: want true or false", ""},
		{"RECHECK_INTERVAL", duration, unless(c.RecheckInterval > 0, positive)},
		{"MAX_QUEUE", commands, unless(c.MaxQueue >= 1, commands)},
		{"SHUTDOWN_TIMEOUT", duration, unless(c.ShutdownTimeout > 0, positive)},
	}
}

// misspelt returns the setting that a misspelt name stands for: a setting that is equal
// except for case, "_" and "-", or that has at least 6 characters and a small edit
// distance. It returns "" if name is a setting itself or similar to none.
func misspelt(name string) string {
	plain := func(text string) string {
		return strings.NewReplacer("_", "", "-", "").Replace(strings.ToUpper(text))
	}
	meant, shortest := "", len(name)
	for field := range reflect.TypeFor[Config]().Fields() {
		setting := field.Tag.Get("env")
		distance := edlib.DamerauLevenshteinDistance(strings.ToUpper(name), setting)
		switch {
		case name == setting:
			return ""
		case plain(name) == plain(setting):
			meant, shortest = setting, 0
		case len(setting) >= 6 && 5*distance <= len(setting) && distance < shortest:
			meant, shortest = setting, distance
		}
	}
	return meant
}

// isHost reports whether text may be a host to listen on. Above all it rejects a port and
// brackets, which Address adds.
func isHost(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	return !strings.ContainsAny(text, ":/[]@ \t\r\n\x00\"'`")
}

// isLevel reports whether level is one of the four named levels. slog also parses levels
// such as info+1.
func isLevel(level slog.Level) bool {
	switch level {
	case slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError:
		return true
	}
	return false
}
