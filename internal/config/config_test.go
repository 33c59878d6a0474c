package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/config"
)

const secret = "hunter2Secret"

func defaults() config.Config {
	return config.Config{
		Database:         config.Database{Driver: config.SQLite, Source: "./resource_locks.db"},
		Host:             "127.0.0.1",
		Port:             8000,
		LogLevel:         slog.LevelInfo,
		LogFormat:        config.LogText,
		SweepInterval:    10 * time.Second,
		IdleRetention:    7 * 24 * time.Hour,
		HistoryRetention: 30 * 24 * time.Hour,
		MaxTTL:           36525 * 24 * time.Hour,

		MaxWait:               5 * time.Minute,
		MaxWaiters:            50000,
		MaxWaitersPerResource: 10000,
		KeepPlace:             10 * time.Second,
		Notifications:         true,
		RecheckInterval:       time.Second,

		MaxQueue:        8192,
		ShutdownTimeout: 30 * time.Second,
	}
}

// envFile writes a .env file and returns its path.
func envFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	t.Setenv("PORT", "1") // must not matter: Load has the environment as an argument

	tests := []struct {
		name    string
		environ []string
		file    string
		want    func(*config.Config)
	}{
		{
			name: "nothing set",
			want: func(*config.Config) {},
		},
		{
			name: "every setting from the environment",
			environ: []string{
				"DATABASE_URL=postgresql://app:pw@db/locks", "HOST=::", "PORT=80", "LOG_LEVEL=debug", "LOG_FORMAT=json",
				"SWEEP_INTERVAL=1m30s", "IDLE_RETENTION=24h", "HISTORY_RETENTION=48h", "MAX_TTL=1h", "DEFAULT_TTL=1m", "MAX_QUEUE=5", "SHUTDOWN_TIMEOUT=500ms",
				"MAX_WAIT=2h", "MAX_WAITERS=6", "MAX_WAITERS_PER_RESOURCE=7", "KEEP_PLACE=3s", "NOTIFICATIONS=false", "RECHECK_INTERVAL=250ms",
			},
			want: func(c *config.Config) {
				*c = config.Config{
					Database: config.Database{Driver: config.Postgres, Source: "postgres://app:pw@db/locks"},
					Host:     "::", Port: 80, LogLevel: slog.LevelDebug, LogFormat: config.LogJSON,
					SweepInterval: 90 * time.Second, IdleRetention: 24 * time.Hour,
					HistoryRetention: 48 * time.Hour, MaxTTL: time.Hour, DefaultTTL: time.Minute,
					MaxWait: 2 * time.Hour, MaxWaiters: 6, MaxWaitersPerResource: 7, KeepPlace: 3 * time.Second,
					Notifications: false, RecheckInterval: 250 * time.Millisecond,
					MaxQueue: 5, ShutdownTimeout: 500 * time.Millisecond,
				}
			},
		},
		{
			name: "the file",
			file: "# comment\nPORT=9000\nexport HOST='0.0.0.0'\nDATABASE_URL='postgres://u:a$B%23@db/locks' # why\n",
			want: func(c *config.Config) {
				c.Port, c.Host = 9000, "0.0.0.0"
				c.Database = config.Database{Driver: config.Postgres, Source: "postgres://u:a$B%23@db/locks"}
			},
		},
		{
			name:    "the environment wins over the file",
			environ: []string{"PORT=9001"},
			file:    "PORT=9000\nHOST=0.0.0.0\n",
			want:    func(c *config.Config) { c.Port, c.Host = 9001, "0.0.0.0" },
		},
		{
			name:    "the environment wins over a bad value in the file",
			environ: []string{"PORT=9001"},
			file:    "PORT=many\n",
			want:    func(c *config.Config) { c.Port = 9001 },
		},
		{
			name:    "empty in the environment leaves the file's value",
			environ: []string{"PORT="},
			file:    "PORT=9000\n",
			want:    func(c *config.Config) { c.Port = 9000 },
		},
		{
			name:    "empty everywhere is the default",
			environ: []string{"PORT=", "DATABASE_URL=", "LOG_LEVEL"},
			file:    "PORT=\nHOST=\"\"\nMAX_TTL=''\n",
			want:    func(*config.Config) {},
		},
		{
			name:    "unknown and nameless variables are ignored",
			environ: []string{"COLOUR=green", "Driver=x", "=x", "=C:=C:\\", "port=7"},
			file:    "COLOUR=red\n",
			want:    func(*config.Config) {},
		},
		{
			name:    "the last of equal names counts, as in exec",
			environ: []string{"PORT=1", "PORT=2"},
			want:    func(c *config.Config) { c.Port = 2 },
		},
		{
			name: "lower limits",
			environ: []string{
				"PORT=0", "MAX_QUEUE=1", "SWEEP_INTERVAL=1ns", "IDLE_RETENTION=1ns", "HISTORY_RETENTION=1ns", "MAX_TTL=1ns", "DEFAULT_TTL=1ns", "SHUTDOWN_TIMEOUT=1ns",
				"MAX_WAIT=1ns", "MAX_WAITERS=1", "MAX_WAITERS_PER_RESOURCE=1", "KEEP_PLACE=1ns", "RECHECK_INTERVAL=1ns",
			},
			want: func(c *config.Config) {
				c.Port, c.MaxQueue = 0, 1
				c.SweepInterval, c.IdleRetention, c.HistoryRetention, c.ShutdownTimeout = 1, 1, 1, 1
				c.MaxTTL, c.DefaultTTL = 1, 1
				c.MaxWait, c.KeepPlace, c.RecheckInterval = 1, 1, 1
				c.MaxWaiters, c.MaxWaitersPerResource = 1, 1
			},
		},
		{
			name: "upper limits",
			environ: []string{
				"PORT=65535", "MAX_QUEUE=2147483647", "MAX_TTL=876600h", "MAX_WAITERS=2147483647", "MAX_WAITERS_PER_RESOURCE=2147483647",
			},
			want: func(c *config.Config) {
				c.Port, c.MaxQueue, c.MaxWaiters, c.MaxWaitersPerResource = 65535, 2147483647, 2147483647, 2147483647
			},
		},
		{
			name:    "log level in any case",
			environ: []string{"LOG_LEVEL=WaRn"},
			want:    func(c *config.Config) { c.LogLevel = slog.LevelWarn },
		},
		{
			name:    "host with a zone",
			environ: []string{"HOST=fe80::1%eth0"},
			want:    func(c *config.Config) { c.Host = "fe80::1%eth0" },
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "no such file")
			if test.file != "" {
				path = envFile(t, test.file)
			}
			want := defaults()
			test.want(&want)

			got, err := config.Load(test.environ, path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadWithoutFileName(t *testing.T) {
	got, err := config.Load(nil, "")
	if err != nil || got != defaults() {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestLoadNamesABadSetting(t *testing.T) {
	const duration = " is not a duration: want a number above zero with its unit, such as 500ms, 10s or 1h30m"
	tests := []struct{ entry, want string }{
		{"HOST=localhost:80", `"localhost:80" is not a host: want a name or an IP address, without port and brackets`},
		{"HOST=[::1]", `"[::1]" is not a host: want a name or an IP address, without port and brackets`},
		{"PORT=80000", `"80000" is not a port: want a whole number from 0 to 65535`},
		{"PORT=65536", `"65536" is not a port: want a whole number from 0 to 65535`},
		{"PORT=-1", `"-1" is not a port: want a whole number from 0 to 65535`},
		{"PORT=http", `"http" is not a port: want a whole number from 0 to 65535`},
		{"PORT=99999999999999999999", `"99999999999999999999" is not a port: want a whole number from 0 to 65535`},
		{"PORT= ", `" " is not a port: want a whole number from 0 to 65535`},
		{"LOG_LEVEL=loud", `"loud" is not a log level: want debug, info, warn or error`},
		{"LOG_LEVEL=info+1", `"info+1" is not a log level: want debug, info, warn or error`},
		{"LOG_FORMAT=xml\n", `"xml\n" is not a log format: want text or json`},
		{"SWEEP_INTERVAL=10", `"10"` + duration},
		{"SWEEP_INTERVAL=0s", `"0s"` + duration},
		{"IDLE_RETENTION=7d", `"7d"` + duration},
		{"IDLE_RETENTION=-1h", `"-1h"` + duration},
		{"MAX_TTL=876600h1ns", `"876600h1ns"` + duration + ", and at most 876600h"},
		{"HISTORY_RETENTION=0s", `"0s"` + duration},
		{"DEFAULT_TTL=-1s", `"-1s"` + duration + " and at most MAX_TTL, or 0s for none"},
		{"DEFAULT_TTL=876601h", `"876601h"` + duration + " and at most MAX_TTL, or 0s for none"},
		{"MAX_TTL=0", `"0"` + duration + ", and at most 876600h"},
		{"MAX_QUEUE=0", `"0" is not a queue length: want a whole number from 1 to 2147483647`},
		{"MAX_QUEUE=2147483648", `"2147483648" is not a queue length: want a whole number from 1 to 2147483647`},
		{"SHUTDOWN_TIMEOUT=30", `"30"` + duration},
		{"MAX_WAIT=0s", `"0s"` + duration},
		{"MAX_WAIT=-5m", `"-5m"` + duration},
		{"MAX_WAIT=300", `"300"` + duration},
		{"MAX_WAITERS=0", `"0" is not a number of waiters: want a whole number from 1 to 2147483647`},
		{"MAX_WAITERS=2147483648", `"2147483648" is not a number of waiters: want a whole number from 1 to 2147483647`},
		{"MAX_WAITERS=many", `"many" is not a number of waiters: want a whole number from 1 to 2147483647`},
		{"MAX_WAITERS_PER_RESOURCE=0", `"0" is not a number of waiters: want a whole number from 1 to 2147483647`},
		{"MAX_WAITERS_PER_RESOURCE=1.5", `"1.5" is not a number of waiters: want a whole number from 1 to 2147483647`},
		{"KEEP_PLACE=0s", `"0s"` + duration},
		{"NOTIFICATIONS=perhaps", `"perhaps" is not a switch: want true or false`},
		{"RECHECK_INTERVAL=0s", `"0s"` + duration},
		{"RECHECK_INTERVAL=1 s", `"1 s"` + duration},
		{"DATABASE_URL=mysql://u:" + secret + "@db/locks", "not the URL of a known database: want " +
			"sqlite:///path/of/file.db, sqlite:///:memory: or postgresql://user:password@host:5432/name"},
	}
	for _, test := range tests {
		t.Run(test.entry, func(t *testing.T) {
			name, _, _ := strings.Cut(test.entry, "=")
			got, err := config.Load([]string{test.entry}, "")
			if err == nil {
				t.Fatalf("got %+v, want an error", got)
			}
			if diff := cmp.Diff(name+": "+test.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if got != (config.Config{}) {
				t.Errorf("got %+v beside the error", got)
			}
		})
	}
}

func TestLoadNamesEveryBadSetting(t *testing.T) {
	file := envFile(t, "SHUTDOWN_TIMEOUT=soon\nMAX_QUEUE=none\nPORT=80000\nLOG_FORMAT=json\n")
	_, err := config.Load([]string{
		"MAX_TTL=1", "PORT=90000", "HOST=a b", "LOG_LEVEL=2", "SWEEP_INTERVAL=x", "IDLE_RETENTION=-1s",
		"LOG_FORMAT=yaml", "DATABASE_URL=sqlite://x.db",
		"RECHECK_INTERVAL=often", "NOTIFICATIONS=2", "KEEP_PLACE=-1s", "MAX_WAITERS_PER_RESOURCE=-1", "MAX_WAITERS=x", "MAX_WAIT=0",
	}, file)
	if err == nil {
		t.Fatal("no error")
	}
	var names []string
	for line := range strings.Lines(err.Error()) {
		name, _, _ := strings.Cut(line, ":")
		names = append(names, name)
	}
	want := []string{
		"DATABASE_URL", "HOST", "PORT", "LOG_LEVEL", "LOG_FORMAT", "SWEEP_INTERVAL", "IDLE_RETENTION", "MAX_TTL",
		"MAX_WAIT", "MAX_WAITERS", "MAX_WAITERS_PER_RESOURCE", "KEEP_PLACE", "NOTIFICATIONS", "RECHECK_INTERVAL",
		"MAX_QUEUE", "SHUTDOWN_TIMEOUT",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("variables named (-want +got):\n%s\n%v", diff, err)
	}
	if !strings.Contains(err.Error(), `PORT: "90000"`) {
		t.Errorf("the value is not that of the environment:\n%v", err)
	}
}

func TestLoadRejectsABadFile(t *testing.T) {
	tests := []struct{ name, content string }{
		{"a line without =", "DATABASE_URL=postgres://u:" + secret + "@h/d\nPORT 80\nMORE=" + secret + "\n"},
		{"a last line without =", "PORT"},
		{"an unclosed quote", "DATABASE_URL='postgres://u:" + secret + "@h/d\n"},
		{"a bad name", "PO-RT=" + secret + "\n"},
		{"no name", "=" + secret + "\n"},
		{"not text", "\x00\x01\xff" + secret},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := envFile(t, test.content)
			_, err := config.Load(nil, path)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), secret) {
				t.Errorf("the error must name the file and quote nothing of it: %v", err)
			}
		})
	}
	t.Run("a directory", func(t *testing.T) {
		dir := t.TempDir()
		if _, err := config.Load(nil, dir); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("got %v, want an error that names %s", err, dir)
		}
	})
}

func TestAddress(t *testing.T) {
	tests := []struct {
		host string
		port int
		want string
	}{
		{"127.0.0.1", 8000, "127.0.0.1:8000"},
		{"::1", 0, "[::1]:0"},
		{"localhost", 65535, "localhost:65535"},
	}
	for _, test := range tests {
		if got := (config.Config{Host: test.host, Port: test.port}).Address(); got != test.want {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

func TestPrintedSettingsHideThePassword(t *testing.T) {
	c, err := config.Load([]string{"DATABASE_URL=postgres://app:" + secret + "@db/locks?sslpassword=" + secret}, "")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, value := range []any{c, &c, c.Database, &c.Database} {
		fmt.Fprintf(&out, "%v %+v %#v\n", value, value, value)
		slog.New(slog.NewTextHandler(&out, nil)).Info("start", "value", value)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("start", "value", value)
		if err := json.NewEncoder(&out).Encode(value); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(out.String(), secret) {
		t.Errorf("the password is in\n%s", &out)
	}
	if !strings.Contains(out.String(), "value=postgres://db/locks") {
		t.Errorf("the database is not in\n%s", &out)
	}
}
