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
		SweepInterval:    time.Second,
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
	t.Setenv("PORT", "1") // must have no effect: Load gets the environment as an argument

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
				"SWEEP_INTERVAL=1m30s", "IDLE_RETENTION=24h", "HISTORY_RETENTION=48h", "MAX_TTL=1h", "DEFAULT_TTL=1m",
				"MAX_QUEUE=5", "SHUTDOWN_TIMEOUT=500ms", "MAX_WAIT=2h", "MAX_WAITERS=6", "MAX_WAITERS_PER_RESOURCE=7",
				"KEEP_PLACE=3s", "NOTIFICATIONS=false", "RECHECK_INTERVAL=250ms",
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
			name: "a file from Windows",
			file: "\ufeffPORT=9000\r\nHOST=0.0.0.0\r\n",
			want: func(c *config.Config) { c.Port, c.Host = 9000, "0.0.0.0" },
		},
		{
			name:    "the environment has precedence over the file",
			environ: []string{"PORT=9001"},
			file:    "PORT=9000\nHOST=0.0.0.0\n",
			want:    func(c *config.Config) { c.Port, c.Host = 9001, "0.0.0.0" },
		},
		{
			name:    "the environment has precedence over a bad value in the file",
			environ: []string{"PORT=9001"},
			file:    "PORT=many\n",
			want:    func(c *config.Config) { c.Port = 9001 },
		},
		{
			name:    "an empty variable of the environment keeps the file's value",
			environ: []string{"PORT="},
			file:    "PORT=9000\n",
			want:    func(c *config.Config) { c.Port = 9000 },
		},
		{
			name:    "a variable that is empty everywhere has its default",
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
			name:    "the last of equal names has precedence, as in exec",
			environ: []string{"PORT=1", "PORT=2"},
			want:    func(c *config.Config) { c.Port = 2 },
		},
		{
			name: "lower limits",
			environ: []string{
				"PORT=0", "MAX_QUEUE=1", "SWEEP_INTERVAL=1ns", "IDLE_RETENTION=1ns", "HISTORY_RETENTION=1ns", "MAX_TTL=1ns",
				"DEFAULT_TTL=1ns", "SHUTDOWN_TIMEOUT=1ns", "MAX_WAIT=1ns", "MAX_WAITERS=1", "MAX_WAITERS_PER_RESOURCE=1",
				"KEEP_PLACE=1ns", "RECHECK_INTERVAL=1ns",
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
				"PORT=65535", "MAX_QUEUE=2147483647", "MAX_TTL=876600h", "MAX_WAITERS=2147483647",
				"MAX_WAITERS_PER_RESOURCE=2147483647",
			},
			want: func(c *config.Config) {
				c.Port, c.MaxQueue = 65535, 2147483647
				c.MaxWaiters, c.MaxWaitersPerResource = 2147483647, 2147483647
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
			path := ""
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
	const (
		duration = " is not a duration: want a number with its unit, such as 500ms, 10s or 1h30m; a day is 24h"
		positive = " is too short: want a duration above zero"
		space    = "; remove the space around it"
		quotes   = "; remove the quotes around it"
	)
	tests := []struct{ entry, want string }{
		{"HOST=localhost:80", `"localhost:80" is not a host: want a name or an IP address, without port and brackets`},
		{"HOST=[::1]", `"[::1]" is not a host: want a name or an IP address, without port and brackets`},
		{"PORT=80000", `"80000" is not a port: want a whole number from 0 to 65535`},
		{"PORT=65536", `"65536" is not a port: want a whole number from 0 to 65535`},
		{"PORT=-1", `"-1" is not a port: want a whole number from 0 to 65535`},
		{"PORT=http", `"http" is not a port: want a whole number from 0 to 65535`},
		{"PORT=99999999999999999999", `"99999999999999999999" is not a port: want a whole number from 0 to 65535`},
		{"PORT= ", `" " is not a port: want a whole number from 0 to 65535` + space},
		{`PORT="8000"`, `"\"8000\"" is not a port: want a whole number from 0 to 65535` + quotes},
		{"PORT='8000'", `"'8000'" is not a port: want a whole number from 0 to 65535` + quotes},
		{"PORT=8000 ", `"8000 " is not a port: want a whole number from 0 to 65535` + space},
		{"PORT='8000", `"'8000" is not a port: want a whole number from 0 to 65535`},
		{
			`HOST="127.0.0.1"`,
			`"\"127.0.0.1\"" is not a host: want a name or an IP address, without port and brackets` + quotes,
		},
		{"LOG_LEVEL=loud", `"loud" is not a log level: want debug, info, warn or error`},
		{"LOG_LEVEL=info+1", `"info+1" is not a log level: want debug, info, warn or error`},
		{"LOG_FORMAT=xml\n", `"xml\n" is not a log format: want text or json` + space},
		{"SWEEP_INTERVAL=10", `"10"` + duration},
		{"SWEEP_INTERVAL=0s", `"0s"` + positive},
		{"IDLE_RETENTION=7d", `"7d"` + duration},
		{"IDLE_RETENTION=-1h", `"-1h"` + positive},
		{"MAX_TTL=876600h1ns", `"876600h1ns" is too long: want at most 876600h`},
		{"HISTORY_RETENTION=0s", `"0s"` + positive},
		{"DEFAULT_TTL=-1s", `"-1s" is too short: want a duration, or 0s for none`},
		{"DEFAULT_TTL=876601h", `"876601h" is above MAX_TTL, which is 876600h0m0s`},
		{"MAX_TTL=0", `"0"` + positive},
		{"MAX_TTL=3600", `"3600"` + duration},
		{"MAX_QUEUE=0", `"0" is not a queue length: want a whole number from 1 to 2147483647`},
		{"MAX_QUEUE=2147483648", `"2147483648" is not a queue length: want a whole number from 1 to 2147483647`},
		{"SHUTDOWN_TIMEOUT=30", `"30"` + duration},
		{"MAX_WAIT=0s", `"0s"` + positive},
		{"MAX_WAIT=-5m", `"-5m"` + positive},
		{"MAX_WAIT=300", `"300"` + duration},
		{"MAX_WAITERS=0", `"0" is not a number of waiters: want a whole number from 1 to 2147483647`},
		{
			"MAX_WAITERS=2147483648",
			`"2147483648" is not a number of waiters: want a whole number from 1 to 2147483647`,
		},
		{"MAX_WAITERS=many", `"many" is not a number of waiters: want a whole number from 1 to 2147483647`},
		{
			"MAX_WAITERS_PER_RESOURCE=0",
			`"0" is not a number of waiters: want a whole number from 1 to 2147483647`,
		},
		{
			"MAX_WAITERS_PER_RESOURCE=1.5",
			`"1.5" is not a number of waiters: want a whole number from 1 to 2147483647`,
		},
		{"KEEP_PLACE=0s", `"0s"` + positive},
		{"NOTIFICATIONS=perhaps", `"perhaps" is not a switch: want true or false`},
		{"RECHECK_INTERVAL=0s", `"0s"` + positive},
		{"RECHECK_INTERVAL=1 s", `"1 s"` + duration},
		{"DATABASE_URL=mysql://u:" + secret + "@db/locks", "not the URL of a known database: want " +
			"sqlite:///path/of/file.db, sqlite:///:memory: or postgresql://user:password@host:5432/name"},
		{`DATABASE_URL="sqlite:///x.db"`, "not the URL of a known database: want sqlite:///path/of/file.db, " +
			"sqlite:///:memory: or postgresql://user:password@host:5432/name" + quotes},
		{"DATABASE_URL=sqlite:///x.db ", "the URL must not begin or end with a space" + space},
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
				t.Errorf("got %+v with the error, want the zero value", got)
			}
		})
	}
}

func TestLoadNamesEveryBadSetting(t *testing.T) {
	file := envFile(t, "SHUTDOWN_TIMEOUT=soon\nMAX_QUEUE=none\nPORT=80000\nLOG_FORMAT=json\n")
	_, err := config.Load([]string{
		"MAX_TTL=1", "PORT=90000", "HOST=a b", "LOG_LEVEL=2", "SWEEP_INTERVAL=x", "IDLE_RETENTION=-1s",
		"LOG_FORMAT=yaml", "DATABASE_URL=sqlite://x.db",
		"RECHECK_INTERVAL=often", "NOTIFICATIONS=2", "KEEP_PLACE=-1s", "MAX_WAITERS_PER_RESOURCE=-1",
		"MAX_WAITERS=x", "MAX_WAIT=0",
	}, file)
	if err == nil {
		t.Fatal("no error")
	}
	var names []string
	for line := range strings.Lines(err.Error()) {
		source, _, _ := strings.Cut(line, ":")
		name, _, _ := strings.Cut(source, " in ")
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
		t.Errorf("the error does not show the value of the environment:\n%v", err)
	}
}

// An invalid setting is not reported as an error of another one.
func TestLoadReportsTheRightSetting(t *testing.T) {
	tests := []struct {
		environ []string
		want    string
	}{
		{[]string{"DEFAULT_TTL=2h", "MAX_TTL=1h"}, `DEFAULT_TTL: "2h" is above MAX_TTL, which is 1h0m0s`},
		{[]string{"DEFAULT_TTL=2h", "MAX_TTL=0s"}, `MAX_TTL: "0s" is too short: want a duration above zero`},
		{[]string{"DEFAULT_TTL=2h", "MAX_TTL=3600"}, `MAX_TTL: "3600" is not a duration: ` +
			"want a number with its unit, such as 500ms, 10s or 1h30m; a day is 24h"},
		{[]string{"DEFAULT_TTL=2h", "MAX_TTL=999999h"}, `MAX_TTL: "999999h" is too long: want at most 876600h`},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.environ, " "), func(t *testing.T) {
			_, err := config.Load(test.environ, "")
			if diff := cmp.Diff(test.want, fmt.Sprint(err)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadNamesTheFileOfABadSetting(t *testing.T) {
	path := envFile(t, "PORT=many\nHOST=a b\n")
	_, err := config.Load([]string{"HOST=c d"}, path)
	want := `HOST: "c d" is not a host: want a name or an IP address, without port and brackets` + "\n" +
		"PORT in " + path + `: "many" is not a port: want a whole number from 0 to 65535`
	if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

// If a misspelt name were ignored, its setting would silently have its default.
func TestLoadRefusesMisspeltNames(t *testing.T) {
	tests := []struct{ name, want string }{
		{"DEFAUTL_TTL", "DEFAULT_TTL"},
		{"default_ttl", "DEFAULT_TTL"},
		{"DefaultTtl", "DEFAULT_TTL"},
		{"defaultt_tl", "DEFAULT_TTL"},
		{"defautl_ttl", "DEFAULT_TTL"},
		{"MAX_TTLS", "MAX_TTL"},
		{"MAX_WAITER", "MAX_WAITERS"},
		{"MAX_WAITR", "MAX_WAIT"},
		{"MAXWAITERSPERRESOURCE", "MAX_WAITERS_PER_RESOURCE"},
		{"MAX_WAITERS_PER_RSEORCE", "MAX_WAITERS_PER_RESOURCE"},
		{"DATABASE_URI", "DATABASE_URL"},
		{"port", "PORT"},
		{"_HOST", "HOST"},
		{"HOTS", ""}, // too short for a suggestion
		{"PORTS", ""},
		{"DB_URL", ""},
		{"LOG", ""},
		{"LOG_FILE", ""},
		{"POSTGRES_DB", ""},
		{"MAX_CONNECTIONS", ""},
		{"COMPOSE_PROJECT_NAME", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := config.Load([]string{test.name + "=x"}, ""); err != nil {
				t.Errorf("in the environment, which contains variables of other programs: %v", err)
			}
			path := envFile(t, test.name+"=x\nPORT=9000\n")
			_, err := config.Load(nil, path)
			want := "<nil>"
			if test.want != "" {
				want = fmt.Sprintf("%s in %s: there is no such setting: write %s, or remove it", test.name, path, test.want)
			}
			if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadRejectsABadFile(t *testing.T) {
	tests := []struct {
		name, content string
		line          int
	}{
		{"a line without =", "DATABASE_URL=postgres://u:" + secret + "@h/d\nPORT 80\nMORE=" + secret + "\n", 2},
		{"a last line without =", "HOST=::\n\nPORT", 3},
		{"an unclosed quote", "# comment\nDATABASE_URL='postgres://u:" + secret + "@h/d\nPORT=80\n", 2},
		{"after a value of several lines", "KEY='" + strings.Repeat("x\n", 60) + "'\nPORT=80\n\nHOST x\nX=1\n", 64},
		{"a bad name", "PO-RT=" + secret + "\n", 1},
		{"no name", "PORT=80\n=" + secret + "\n", 2},
		{"not text", "\x00\x01\xff" + secret, 1},
		{"line breaks of Windows", "PORT=80\r\nHOST x\r\n", 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := envFile(t, test.content)
			_, err := config.Load(nil, path)
			want := fmt.Sprintf("settings file %s, line %d: want NAME=value, "+
				"a closing quote for each opening one, comments after #", path, test.line)
			if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("a directory", func(t *testing.T) {
		dir := t.TempDir()
		_, err := config.Load(nil, dir)
		if diff := cmp.Diff("settings file "+dir+": is a directory", fmt.Sprint(err)); diff != "" {
			t.Errorf("error (-want +got):\n%s", diff)
		}
	})
	t.Run("missing", func(t *testing.T) {
		t.Chdir(t.TempDir())
		if _, err := config.Load(nil, config.DefaultFile); err != nil {
			t.Errorf("the default file may be missing: %v", err)
		}
		folder, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		_, err = config.Load(nil, "other.env")
		if diff := cmp.Diff("settings file "+folder+"/other.env: no such file or directory", fmt.Sprint(err)); diff != "" {
			t.Errorf("error (-want +got):\n%s", diff)
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
		t.Errorf("the output contains the password:\n%s", &out)
	}
	if !strings.Contains(out.String(), "value=postgres://db/locks") {
		t.Errorf("the output does not contain the database:\n%s", &out)
	}
}
