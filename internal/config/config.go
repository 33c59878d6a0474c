// Package config reads the settings of the server.
//
// A setting comes from the environment, else from a .env file, else from its default; .env.example lists them all. A
// variable that is empty counts as unset in either place, so an empty one in the environment leaves the file's value
// standing. Variables that the server does not know are ignored, but for a name in the file that is
// nearly a setting's: it is an error.
//
// Load either returns settings that are all within their limits or an error that names every bad one, so that an
// operator mends them in one go. No error shows the password of the database, nor does a Config that slog logs, that
// fmt prints with %v, %+v or %#v, or that becomes JSON.
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

// longestTTL is the largest MAX_TTL: a hundred years, which is also the longest TTL that the lock rules can express.
const longestTTL = 36525 * 24 * time.Hour

// LogFormat is how log records are written.
type LogFormat string

// The formats of log records.
const (
	LogText LogFormat = "text" // key=value pairs
	LogJSON LogFormat = "json" // one JSON object per line
)

// Config holds every setting, each under its environment variable and with its default.
type Config struct {
	// Database is where the locks are kept. ParseDatabaseURL tells the forms.
	Database Database `env:"DATABASE_URL" envDefault:"sqlite:///./resource_locks.db"`
	// Host is the name or IP address to listen on.
	Host string `env:"HOST" envDefault:"127.0.0.1"`
	// Port is the TCP port to listen on, 0 to 65535; 0 stands for any free port.
	Port int `env:"PORT" envDefault:"8000"`
	// LogLevel is the least severe level that is logged: debug, info, warn or error.
	LogLevel slog.Level `env:"LOG_LEVEL" envDefault:"info"`
	// LogFormat is LogText or LogJSON.
	LogFormat LogFormat `env:"LOG_FORMAT" envDefault:"text"`
	// SweepInterval is the time within which the expiry of a lock is recorded in the history; above zero.
	SweepInterval time.Duration `env:"SWEEP_INTERVAL" envDefault:"1s"`
	// IdleRetention is how long nobody must have held a resource before its row is deleted; above zero.
	IdleRetention time.Duration `env:"IDLE_RETENTION" envDefault:"168h"`
	// HistoryRetention is how long events stay in the history; above zero.
	HistoryRetention time.Duration `env:"HISTORY_RETENTION" envDefault:"720h"`
	// MaxTTL is the longest TTL that a request may ask for; above zero, at most 36525 days. Below that, locks that never
	// expire are not allowed.
	MaxTTL time.Duration `env:"MAX_TTL" envDefault:"876600h"`
	// DefaultTTL is the TTL of a request that names none, at most MaxTTL; 0: its lock never expires.
	DefaultTTL time.Duration `env:"DEFAULT_TTL" envDefault:"0s"`
	// MaxWait is the longest time that a request may ask to wait for a lock; above zero.
	MaxWait time.Duration `env:"MAX_WAIT" envDefault:"300s"`
	// MaxWaiters is how many requests may wait for locks on this server; at least 1.
	MaxWaiters int `env:"MAX_WAITERS" envDefault:"50000"`
	// MaxWaitersPerResource is how many requests may wait for one lock, on all servers; at least 1.
	MaxWaitersPerResource int `env:"MAX_WAITERS_PER_RESOURCE" envDefault:"10000"`
	// KeepPlace is how long the place of a request that was cut off is kept for one with the same request_id; above zero.
	KeepPlace time.Duration `env:"KEEP_PLACE" envDefault:"10s"`
	// Notifications tells whether servers on one Postgres wake each other by LISTEN and NOTIFY. Without, a hand-over to
	// another server is late by up to RecheckInterval.
	Notifications bool `env:"NOTIFICATIONS" envDefault:"true"`
	// RecheckInterval is how often a server looks for waiters whose turn has come without its having been told; above zero.
	RecheckInterval time.Duration `env:"RECHECK_INTERVAL" envDefault:"1s"`
	// MaxQueue is how many commands may wait for the database before requests are answered 503; at least 1.
	MaxQueue int `env:"MAX_QUEUE" envDefault:"8192"`
	// ShutdownTimeout is how long requests may take to finish once the server has been told to stop; above zero.
	ShutdownTimeout time.Duration `env:"SHUTDOWN_TIMEOUT" envDefault:"30s"`
}

// DefaultFile is the settings file that need not exist.
const DefaultFile = ".env"

// Load reads the settings from environ, whose entries have the form of os.Environ's, and from the
// .env file at envFile, if that is not empty. The environment wins. A file that does not exist is an
// error unless it is DefaultFile; an error about the file stands alone. Otherwise the error has one
// line for each bad setting, in the order of Config.
func Load(environ []string, envFile string) (Config, error) {
	inFile, err := readFile(envFile)
	if err != nil {
		return Config{}, err
	}
	values, places := maps.Clone(inFile), map[string]string{}
	for name := range inFile {
		places[name] = name + " in " + absolute(envFile)
	}
	for _, entry := range environ {
		if name, value, _ := strings.Cut(entry, "="); value != "" {
			values[name], places[name] = value, name
		}
	}
	// The env package would give a variable without a name to the untagged fields within Database.
	delete(values, "")

	c, err := env.ParseAsWithOptions[Config](env.Options{Environment: values})
	faults, err := c.faults(values, places, err)
	if err != nil {
		return Config{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(inFile)) {
		if meant := misspelt(name); meant != "" {
			faults = append(faults, fmt.Errorf("%s in %s: there is no such setting: write %s, or remove it", name, absolute(envFile), meant))
		}
	}
	if len(faults) > 0 {
		return Config{}, errors.Join(faults...)
	}
	return c, nil
}

// Address is host and port in the form that net.Listen takes.
func (c Config) Address() string {
	return net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
}

// faults words everything that is wrong with c, given the values it was read from, how to call each
// of them, and what the env package said.
func (c Config) faults(values, places map[string]string, parseErr error) ([]error, error) {
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
	// The value of this one is not shown: it may hold a password in places where only its writer sees one.
	if err := unparsed["DATABASE_URL"]; err != nil {
		faults = append(faults, fmt.Errorf("%s: %w%s", places["DATABASE_URL"], err, wrapping(values["DATABASE_URL"])))
	}
	for _, rule := range c.rules() {
		value, fault := values[rule.variable], rule.fault
		if unparsed[rule.variable] != nil {
			fault = rule.form
		}
		if fault != "" {
			faults = append(faults, fmt.Errorf("%s: %q is %s%s", places[rule.variable], value, fault, wrapping(value)))
		}
	}
	return faults, nil
}

// wrapping says what to remove from around a value. A shell would have removed it; others, such as
// docker with its --env-file, pass on what they read.
func wrapping(value string) string {
	switch {
	case value != strings.TrimSpace(value):
		return "; remove the space around it"
	case len(value) > 1 && value[0] == value[len(value)-1] && strings.ContainsRune("\"'`", rune(value[0])):
		return "; remove the quotes around it"
	}
	return ""
}

// rule is what the value of a variable must fulfil.
type rule struct {
	variable string
	form     string // what a value is not that has the wrong type
	fault    string // what is wrong with a value of the right type; "" if nothing is
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
	maxTTL, defaultTTL := unless(c.MaxTTL > 0, positive), unless(c.DefaultTTL >= 0, "too short: want a duration, or 0s for none")
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

// misspelt returns the setting that the name of a variable is nearly: equal without case, "_" and
// "-", or, for settings of at least 6 characters, a few slips away. It is "" for a setting's own
// name and for one that is like none.
func misspelt(name string) string {
	plain := func(text string) string {
		return strings.NewReplacer("_", "", "-", "").Replace(strings.ToUpper(text))
	}
	meant, fewest := "", len(name)
	for field := range reflect.TypeFor[Config]().Fields() {
		setting := field.Tag.Get("env")
		slips := edlib.DamerauLevenshteinDistance(strings.ToUpper(name), setting)
		switch {
		case name == setting:
			return ""
		case plain(name) == plain(setting):
			meant, fewest = setting, 0
		case len(setting) >= 6 && 5*slips <= len(setting) && slips < fewest:
			meant, fewest = setting, slips
		}
	}
	return meant
}

// isHost finds what could never be listened on, above all a port or brackets that Address would double.
func isHost(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	return !strings.ContainsAny(text, ":/[]@ \t\r\n\x00\"'`")
}

// isLevel keeps out slog's levels in between, such as info+1.
func isLevel(level slog.Level) bool {
	switch level {
	case slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError:
		return true
	}
	return false
}
