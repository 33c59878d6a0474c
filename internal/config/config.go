// Package config reads the settings of the server.
//
// A setting comes from the environment, else from a .env file, else from its default; .env.example lists them all. A
// variable that is empty counts as unset in either place, so an empty one in the environment leaves the file's value
// standing. Variables that the server does not know are ignored.
//
// Load either returns settings that are all within their limits or an error that names every bad one, so that an
// operator mends them in one go. No error shows the password of the database, nor does a Config that slog logs, that
// fmt prints with %v, %+v or %#v, or that becomes JSON.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/joho/godotenv"
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
	// SweepInterval is the time between two clean-ups of expired locks; above zero.
	SweepInterval time.Duration `env:"SWEEP_INTERVAL" envDefault:"10s"`
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

// Load reads the settings from environ, whose entries have the form of os.Environ's, and from the .env file at envFile.
// The environment wins. A file that does not exist is fine; one that cannot be read or understood is an error, which
// then stands alone. Otherwise the error has one line for each bad setting, in the order of Config.
func Load(environ []string, envFile string) (Config, error) {
	values, err := readFile(envFile)
	if err != nil {
		return Config{}, err
	}
	for _, entry := range environ {
		if name, value, _ := strings.Cut(entry, "="); value != "" {
			values[name] = value
		}
	}
	// The env package would give a variable without a name to the untagged fields within Database.
	delete(values, "")

	c, err := env.ParseAsWithOptions[Config](env.Options{Environment: values})
	if err := c.faults(values, err); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Address is host and port in the form that net.Listen takes.
func (c Config) Address() string {
	return net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
}

// readFile returns the variables of a .env file, none if there is no file.
func readFile(path string) (map[string]string, error) {
	content, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return map[string]string{}, nil
	case err != nil:
		return nil, fmt.Errorf("settings file: %w", err)
	}
	values, err := godotenv.UnmarshalBytes(content)
	// A last line that is only a word makes godotenv report a variable without a name instead of an error.
	if _, nameless := values[""]; err != nil || nameless {
		// godotenv's own words quote the file, passwords included.
		return nil, fmt.Errorf("settings file %s: want one NAME=value on each line, quotes closed, comments after #", path)
	}
	return values, nil
}

// faults words everything that is wrong with c, given the values it was read from and what the env package said.
func (c Config) faults(values map[string]string, parseErr error) error {
	unparsed := map[string]error{}
	if parseErr != nil {
		aggregate, ok := errors.AsType[env.AggregateError](parseErr)
		if !ok {
			return parseErr
		}
		for _, err := range aggregate.Errors {
			parse, ok := errors.AsType[env.ParseError](err)
			if !ok {
				return err
			}
			field, _ := reflect.TypeFor[Config]().FieldByName(parse.Name)
			unparsed[field.Tag.Get("env")] = parse.Err
		}
	}

	var lines []error
	// The value of this one is not shown: it may hold a password in places where only its writer sees one.
	if err := unparsed["DATABASE_URL"]; err != nil {
		lines = append(lines, fmt.Errorf("DATABASE_URL: %w", err))
	}
	for _, rule := range c.rules() {
		if unparsed[rule.variable] != nil || !rule.holds {
			lines = append(lines, fmt.Errorf("%s: %q is not %s", rule.variable, values[rule.variable], rule.wanted))
		}
	}
	return errors.Join(lines...)
}

// rule is what the value of a variable must fulfil beyond having the right type. The words fit a wrong type too.
type rule struct {
	variable string
	holds    bool
	wanted   string
}

func (c Config) rules() []rule {
	const duration = "a duration: want a number above zero with its unit, such as 500ms, 10s or 1h30m"
	return []rule{
		{"HOST", isHost(c.Host), "a host: want a name or an IP address, without port and brackets"},
		{"PORT", 0 <= c.Port && c.Port <= 65535, "a port: want a whole number from 0 to 65535"},
		{"LOG_LEVEL", isLevel(c.LogLevel), "a log level: want debug, info, warn or error"},
		{"LOG_FORMAT", c.LogFormat == LogText || c.LogFormat == LogJSON, "a log format: want text or json"},
		{"SWEEP_INTERVAL", c.SweepInterval > 0, duration},
		{"IDLE_RETENTION", c.IdleRetention > 0, duration},
		{"HISTORY_RETENTION", c.HistoryRetention > 0, duration},
		{"MAX_TTL", 0 < c.MaxTTL && c.MaxTTL <= longestTTL, duration + ", and at most 876600h"},
		{"DEFAULT_TTL", 0 <= c.DefaultTTL && c.DefaultTTL <= c.MaxTTL, duration + " and at most MAX_TTL, or 0s for none"},
		{"MAX_WAIT", c.MaxWait > 0, duration},
		{"MAX_WAITERS", c.MaxWaiters >= 1, "a number of waiters: want a whole number from 1 to 2147483647"},
		{"MAX_WAITERS_PER_RESOURCE", c.MaxWaitersPerResource >= 1, "a number of waiters: want a whole number from 1 to 2147483647"},
		{"KEEP_PLACE", c.KeepPlace > 0, duration},
		{"NOTIFICATIONS", true, "a switch: want true or false"},
		{"RECHECK_INTERVAL", c.RecheckInterval > 0, duration},
		{"MAX_QUEUE", c.MaxQueue >= 1, "a queue length: want a whole number from 1 to 2147483647"},
		{"SHUTDOWN_TIMEOUT", c.ShutdownTimeout > 0, duration},
	}
}

// isHost finds what could never be listened on, above all a port or brackets that Address would double.
func isHost(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	return !strings.ContainsAny(text, ":/[]@ \t\r\n\x00")
}

// isLevel keeps out slog's levels in between, such as info+1.
func isLevel(level slog.Level) bool {
	switch level {
	case slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError:
		return true
	}
	return false
}
