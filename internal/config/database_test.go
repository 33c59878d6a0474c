package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"resource-lock-manager/internal/config"
)

func TestParseDatabaseURL(t *testing.T) {
	tests := []struct {
		name   string
		text   string
		driver string
		source string
		log    string // the result of String
	}{
		{"relative", "sqlite:///name.db", "sqlite", "name.db", "sqlite:///name.db"},
		{"relative with dot", "sqlite:///./name.db", "sqlite", "./name.db", "sqlite:///./name.db"},
		{"absolute", "sqlite:////abs/path.db", "sqlite", "/abs/path.db", "sqlite:////abs/path.db"},
		{"nothing", "sqlite://", "sqlite", "", "sqlite:///:memory:"},
		{"empty path", "sqlite:///", "sqlite", "", "sqlite:///:memory:"},
		{"memory", "sqlite:///:memory:", "sqlite", "", "sqlite:///:memory:"},
		{"memory with query", "sqlite:///:memory:?cache=shared", "sqlite", "", "sqlite:///:memory:"},
		{"nothing with query", "sqlite://?timeout=30", "sqlite", "", "sqlite:///:memory:"},
		{"Python driver", "sqlite+pysqlite:///x.db", "sqlite", "x.db", "sqlite:///x.db"},
		{"any Python driver", "sqlite+aiosqlite:///x.db", "sqlite", "x.db", "sqlite:///x.db"},
		{"upper case", "SQLite+PySQLite:///X.db", "sqlite", "X.db", "sqlite:///X.db"},
		{"special characters", "sqlite:///a b%20#+&=@:.db", "sqlite", "a b%20#+&=@:.db", "sqlite:///a b%20#+&=@:.db"},
		{"query", "sqlite:///x.db?check_same_thread=false&timeout=30", "sqlite", "x.db", "sqlite:///x.db"},
		{"query with empty value", "sqlite:///x.db?timeout=", "sqlite", "x.db", "sqlite:///x.db"},
		{"? within the name", "sqlite:///what?.db", "sqlite", "what?.db", "sqlite:///what?.db"},
		{"? at the end", "sqlite:///what?", "sqlite", "what?", "sqlite:///what?"},
		{"? before an incomplete query", "sqlite:///what?a=b&c", "sqlite", "what?a=b&c", "sqlite:///what?a=b&c"},
		{"? before a key that is not a word", "sqlite:///what?/a=b", "sqlite", "what?/a=b", "sqlite:///what?/a=b"},
		{"? before a missing key", "sqlite:///what?=b", "sqlite", "what?=b", "sqlite:///what?=b"},
		{"SQLite URI is a file name", "sqlite:///file:x.db", "sqlite", "file:x.db", "sqlite:///file:x.db"},

		{"postgresql", "postgresql://u:p@h:5432/d", "postgres", "postgres://u:p@h:5432/d", "postgres://h:5432/d"},
		{"postgres", "postgres://u:p@h/d", "postgres", "postgres://u:p@h/d", "postgres://h/d"},
		{"psycopg2", "postgresql+psycopg2://u:p@h/d", "postgres", "postgres://u:p@h/d", "postgres://h/d"},
		{"asyncpg", "postgresql+asyncpg://u:p@h/d", "postgres", "postgres://u:p@h/d", "postgres://h/d"},
		{"upper case scheme", "PostgreSQL+PsycoPG2://U:P@H/D", "postgres", "postgres://U:P@H/D", "postgres://H/D"},
		{"no password", "postgresql://u@h/d", "postgres", "postgres://u@h/d", "postgres://h/d"},
		{"no user", "postgresql://h/d", "postgres", "postgres://h/d", "postgres://h/d"},
		{"IPv6", "postgresql://u:p@[::1]:5432/d", "postgres", "postgres://u:p@[::1]:5432/d", "postgres://[::1]:5432/d"},
		{"escaped password", "postgresql://u:%40%2F%25@h/d", "postgres", "postgres://u:%40%2F%25@h/d", "postgres://h/d"},
		{
			"several hosts", "postgresql://u:p@h1:5432,h2:5433/d?sslmode=disable&target_session_attrs=read-write",
			"postgres", "postgres://u:p@h1:5432,h2:5433/d?sslmode=disable&target_session_attrs=read-write",
			"postgres://h1:5432,h2:5433/d",
		},
		{"Unix socket", "postgresql://u:p@/d?host=/tmp", "postgres", "postgres://u:p@/d?host=/tmp", "postgres:///d"},
		{"password as parameter", "postgresql://h/d?password=p", "postgres", "postgres://h/d?password=p", "postgres://h/d"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := config.ParseDatabaseURL(test.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(config.Database{Driver: test.driver, Source: test.source}, got); diff != "" {
				t.Errorf("database (-want +got):\n%s", diff)
			}
			if got.String() != test.log {
				t.Errorf("String: got %s, want %s", got, test.log)
			}
		})
	}
}

func TestPgxGetsTheURLUnchanged(t *testing.T) {
	d, err := config.ParseDatabaseURL(
		"postgresql+psycopg2://us%40er:p%40%2F%3F%25%23+@h1:1,h2:2/na%20me?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.ParseConfig(d.Source)
	if err != nil {
		t.Fatal(err)
	}
	want := []any{"us@er", "p@/?%#+", "h1", uint16(1), "na me"}
	if diff := cmp.Diff(want, []any{got.User, got.Password, got.Host, got.Port, got.Database}); diff != "" {
		t.Errorf("the URL as pgx parses it (-want +got):\n%s", diff)
	}
}

func TestParseDatabaseURLErrors(t *testing.T) {
	const (
		forms   = "not the URL of a known database"
		slashes = "needs three slashes"
		control = "line breaks or NUL"
		escape  = "percent-encoded: @ as %40"
		shape   = "not a usable Postgres URL"
		port    = "the port, or PGPORT: want a whole number from 1 to 65535"
		space   = "begin or end with a space"
	)
	tests := []struct{ name, text, want string }{
		{"empty", "", forms},
		{"no scheme", "://x", forms},
		{"no separator", "sqlite", forms},
		{"only a path", "./x.db", forms},
		{"one slash", "sqlite:/x.db", forms},
		{"other database", "mysql://u:" + secret + "@h/d", forms},
		{"misspelt", "postgre://u:" + secret + "@h/d", forms},
		{"space before", " postgres://u:" + secret + "@h/d", space},
		{"space after", "sqlite:///x.db ", space},
		{"tab after", "postgres://u:" + secret + "@h/d\t", space},
		{"keyword form", "host=h password=" + secret, forms},
		{"two slashes", "sqlite://x.db", slashes},
		{"two slashes and memory", "sqlite://:memory:", slashes},
		{"SQLCipher", "sqlite+pysqlcipher://:" + secret + "@/x.db", slashes},
		{"NUL", "sqlite:///x\x00.db", control},
		{"line feed", "sqlite:///x\n.db", control},
		{"carriage return", "sqlite:///x.db\r", control},
		{"line feed for Postgres", "postgres://u:" + secret + "\n@h/d", control},
		{"@ in the password", "postgres://u:a@" + secret + "@h/d", escape},
		{"/ in the password", "postgres://u:12/" + secret + "@h/d", escape},
		{"? in the password", "postgres://u:12?a=" + secret + "@h/d", escape},
		{"@ in a parameter", "postgres://u:" + secret + "@h/d?application_name=a@b", escape},
		{"bad escape", "postgres://u:" + secret + "%zz@h/d", shape},
		{"bad port", "postgres://u:" + secret + "@h:port/d", port},
		{"password as port", "postgres://u:" + secret, port},
		{"bad sslmode", "postgres://u:" + secret + "@h/d?sslmode=maybe", "sslmode or PGSSLMODE: want disable, "},
		{"port of zero", "postgres://u:" + secret + "@h:0/d", port},
		{"ports that do not match", "postgres://u:" + secret + "@h1,h2/d?port=1,2,3", "want one port, or one for each host"},
		{
			"bad connect_timeout", "postgres://u:" + secret + "@h/d?connect_timeout=5s",
			"connect_timeout or PGCONNECT_TIMEOUT: want ",
		},
		{
			"bad target", "postgres://u:" + secret + "@h/d?target_session_attrs=rw",
			"target_session_attrs or PGTARGETSESSIONATTRS: want ",
		},
		{"key without certificate", "postgres://u:" + secret + "@h/d?sslkey=x", "sslcert and sslkey: want both or none"},
		{"other parameter of pgx", "postgres://u:" + secret + "@h/d?channel_binding=perhaps", shape},
		{"unfinished IPv6", "postgres://u:" + secret + "@[::1/d", shape},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := config.ParseDatabaseURL(test.text)
			if err == nil {
				t.Fatalf("got %s, want an error", got)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want it to contain %q", err, test.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error contains the password: %v", err)
			}
		})
	}
}

func TestStringOfAnyDatabase(t *testing.T) {
	tests := []struct {
		name string
		d    config.Database
		want string
	}{
		{"zero", config.Database{}, "://(hidden)"},
		{"keywords", config.Database{Driver: config.Postgres, Source: "host=h password=" + secret}, "postgres://(hidden)"},
		{
			"two @",
			config.Database{Driver: config.Postgres, Source: "postgres://u:a@" + secret + "@h/d"},
			"postgres://(hidden)",
		},
		{"other scheme", config.Database{Driver: "mysql", Source: "mysql://u:" + secret + "@h/d"}, "mysql://(hidden)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.d.String(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func FuzzParseDatabaseURL(f *testing.F) {
	for _, seed := range []string{
		"", "sqlite://", "sqlite:///:memory:", "sqlite:///./x.db", "sqlite:////abs/x y%#+.db", "sqlite+pysqlite:///x?a=b?c=d",
		"sqlite:///x?y?a=b", "sqlite://" + secret, "mysql://u:" + secret + "@h/d", "POSTGRES://u:" + secret + "@h/d",
		"postgresql+psycopg2://u:" + secret + "@h1:1,h2:2/d?sslmode=disable&target_session_attrs=read-write",
		"postgres://u:a%40" + secret + "%2Fb@[::1]:5432/d", "postgres://h/d?user=u&password=" + secret,
		"postgres://u:1@2/" + secret + "@h/d", "postgres://u:1?a=" + secret + "@h/d", "postgres://u:1/" + secret + "@h",
		"postgres://u:12#" + secret + "@h/d", "postgres:///d?host=/tmp&pass%77ord=" + secret, "postgres://" + secret + "@h",
	} {
		f.Add(seed)
	}
	// The password as SQLAlchemy parses it.
	sqlAlchemy := regexp.MustCompile(`^[\w+]+://[^:/]*:([^@]*)@`)

	f.Fuzz(func(t *testing.T, text string) {
		d, err := config.ParseDatabaseURL(text)
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error contains the password: %v", err)
			}
			return
		}

		same := d.Source
		switch d.Driver {
		case config.SQLite:
			same = d.String()
		case config.Postgres:
			read, err := pgx.ParseConfig(d.Source)
			if err != nil {
				t.Fatalf("pgx does not parse %q: %v", d.Source, err)
			}
			password := read.Password
			if match := sqlAlchemy.FindStringSubmatch(text); match != nil {
				password += " " + match[1]
			}
			// If the text contains the secret twice, one of the copies may be the host.
			once := strings.Count(text, secret) == 1
			if once && strings.Contains(password, secret) && strings.Contains(d.String(), secret) {
				t.Errorf("String of %q contains the password: %s", text, d)
			}
		default:
			t.Fatalf("unknown driver %q", d.Driver)
		}
		again, err := config.ParseDatabaseURL(same)
		if err != nil || again != d {
			t.Errorf("%q, the result of %q, is parsed as %#v, %v", same, text, again, err)
		}
	})
}

// The error contains the absolute path of an unusable file that a Postgres URL or a PG*
// variable refers to.
func TestParseDatabaseURLNamesFiles(t *testing.T) {
	folder := t.TempDir()
	t.Chdir(folder)
	text := filepath.Join(folder, "text")
	if err := os.WriteFile(text, []byte("neither certificate nor key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const missing = "/missing: no such file or directory"
	tests := []struct{ parameters, variable, want string }{
		{"sslrootcert=missing", "", "sslrootcert or PGSSLROOTCERT: " + folder + missing},
		{"", "PGSSLROOTCERT=missing", "sslrootcert or PGSSLROOTCERT: " + folder + missing},
		{"sslrootcert=" + folder, "", "sslrootcert or PGSSLROOTCERT: " + folder + ": is a directory"},
		{"sslrootcert=text", "", "sslrootcert or PGSSLROOTCERT: the file holds no certificate (PEM)"},
		{"sslcert=text&sslkey=missing", "", "sslkey or PGSSLKEY: " + folder + missing},
		{"sslcert=text&sslkey=text", "", "sslkey or PGSSLKEY: the file holds no key (PEM)"},
		{"service=x&servicefile=missing", "", "servicefile or PGSERVICEFILE: " + folder + missing},
		{"service=x", "PGSERVICEFILE=missing", "servicefile or PGSERVICEFILE: " + folder + missing},
		{
			"service=x", "PGSERVICEFILE=text",
			"servicefile or PGSERVICEFILE: " + text + ": it must consist of [sections] with NAME=value on each line",
		},
		{
			"service=x", "PGSERVICEFILE=/dev/null",
			"service or PGSERVICE: the service file has no section of that name",
		},
	}
	for _, test := range tests {
		t.Run(test.parameters+" "+test.variable, func(t *testing.T) {
			if name, value, found := strings.Cut(test.variable, "="); found {
				t.Setenv(name, value)
			}
			_, err := config.ParseDatabaseURL("postgres://u:" + secret + "@h/d?" + test.parameters)
			if diff := cmp.Diff(test.want, fmt.Sprint(err)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}
