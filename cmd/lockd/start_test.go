package main

import (
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// startError is a reason why lockd cannot start: its command line and environment, and
// the words that state the problem and the remedy.
type startError struct {
	environment []string
	args        []string
	bound       bool // file permissions apply, as for an ordinary user
	want        string
}

func (e startError) try(t *testing.T, folder string) {
	t.Helper()
	command := append([]string{os.Args[0]}, e.args...)
	if e.bound && os.Getuid() == 0 {
		command = append([]string{"setpriv", "--bounding-set=-all", "--inh-caps=-all"}, command...)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = folder
	cmd.Env = append([]string{runMain + "=1", "PATH=" + os.Getenv("PATH"), "DATABASE_URL=sqlite://", "PORT=0"},
		e.environment...)
	p := apptest.Launch(t, cmd)
	wantRefusal(t, p, e.want)
	if !strings.HasPrefix(p.Output.String(), "lockd: ") {
		t.Error("the output does not start with lockd:")
	}
}

// TestStartErrorsOfSettings gives every setting a wrong value, a quoted value, a value
// with a trailing space, and one without its unit. All faults are reported at once, so
// each kind of fault is one start.
func TestStartErrorsOfSettings(t *testing.T) {
	t.Parallel()
	example, err := os.ReadFile("../../.env.example")
	must(t, err)
	settings := regexp.MustCompile(`(?m)^([A-Z_]+)=(.*)$`).FindAllStringSubmatch(string(example), -1)
	if len(settings) < 10 {
		t.Fatalf("only %d settings in .env.example", len(settings))
	}
	isDuration := regexp.MustCompile(`^\d+[a-z]+$`)
	kinds := map[string]struct {
		spoil func(value string) string
		hint  string
	}{
		"wrong":          {func(string) string { return "a b" }, ""},
		"in quotes":      {func(value string) string { return `"` + value + `"` }, "; remove the quotes around it"},
		"in apostrophes": {func(value string) string { return "'" + value + "'" }, "; remove the quotes around it"},
		"a space behind": {func(value string) string { return value + " " }, "; remove the space around it"},
		"without a unit": {func(value string) string {
			if isDuration.MatchString(value) {
				return "10"
			}
			return ""
		}, ""},
	}
	for kind, k := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var environment, wants []string
			for _, setting := range settings {
				name, value := setting[1], k.spoil(setting[2])
				if value == "" {
					continue
				}
				environment = append(environment, name+"="+value)
				want := fmt.Sprintf("%s: %q is not ", name, value)
				if name == "DATABASE_URL" {
					want = "DATABASE_URL: "
				}
				wants = append(wants, want)
			}
			p := launch(t, t.TempDir(), environment)
			if code := p.ExitCode(t); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			lines := p.Output.Lines()
			if len(lines) != len(wants) {
				t.Fatalf("%d lines, want one for each of %d settings", len(lines), len(wants))
			}
			for i, line := range lines {
				line = strings.TrimPrefix(line, "lockd: ")
				if !strings.HasPrefix(line, wants[i]) || !strings.Contains(line, "want ") && k.hint == "" ||
					!strings.HasSuffix(line, k.hint) {
					t.Errorf("got %s\nwant %s...%s", line, wants[i], k.hint)
				}
			}
		})
	}
}

func TestStartErrorsOfFilesAndPorts(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write := func(name, text string) {
		must(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
	}
	write("malformed.env", "PORT=0\nDATABASE_URL='postgres://u:"+secret+"@h/d\n")
	write("misspelt.env", "DEFAUTL_TTL=5m\n")
	write("bad.env", "PORT=many\n")
	write("forbidden.env", "")
	write("forbidden.crt", "")
	write("text", "neither certificate nor key")
	must(t, os.Mkdir(filepath.Join(folder, "closed"), 0o700))
	write("closed/in.env", "")
	for _, name := range []string{"forbidden.env", "forbidden.crt", "closed"} {
		must(t, os.Chmod(filepath.Join(folder, name), 0))
	}
	t.Cleanup(func() { must(t, os.Chmod(filepath.Join(folder, "closed"), 0o700)) })
	me, err := user.Current()
	must(t, err)
	forbidden := func(name, mode string) string {
		return fmt.Sprintf("permission denied: %s belongs to the user %s and has the mode %s, "+
			"and this program runs as the user %[2]s",
			filepath.Join(folder, name), me.Username, mode)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	_, port, err := net.SplitHostPort(taken.Addr().String())
	must(t, err)
	postgres := func(parameters string) string {
		return "DATABASE_URL=postgres://u:" + secret + "@localhost/d?" + parameters
	}

	tests := map[string]startError{
		"-env-file missing": {
			args: []string{"-env-file", "missing.env"},
			want: "settings file " + folder + "/missing.env: no such file",
		},
		"-env-file is a folder": {
			args: []string{"-env-file", "."},
			want: "settings file " + folder + ": is a directory",
		},
		"-env-file below a file": {
			args: []string{"-env-file", "text/x"},
			want: "settings file " + folder + "/text/x: not a directory",
		},
		"-env-file malformed": {
			args: []string{"-env-file", "malformed.env"},
			want: "settings file " + folder + "/malformed.env, line 2: want NAME=value",
		},
		"-env-file may not be read": {
			args: []string{"-env-file", "forbidden.env"}, bound: true,
			want: forbidden("forbidden.env", "----------"),
		},
		"-env-file in a closed folder": {
			args: []string{"-env-file", "closed/in.env"}, bound: true,
			want: forbidden("closed", "d---------"),
		},
		"a misspelt name": {
			args: []string{"-env-file", "misspelt.env"},
			want: "DEFAUTL_TTL in " + folder + "/misspelt.env: there is no such setting: write DEFAULT_TTL",
		},
		"a bad value in the file": {
			args: []string{"-env-file=bad.env"}, environment: []string{"PORT="},
			want: "PORT in " + folder + `/bad.env: "many" is not a port`,
		},
		"DEFAULT_TTL above MAX_TTL": {
			environment: []string{"DEFAULT_TTL=2h", "MAX_TTL=1h"},
			want:        `DEFAULT_TTL: "2h" is above MAX_TTL, which is 1h0m0s`,
		},

		"HOST unknown": {
			environment: []string{"HOST=nosuch.invalid"},
			want:        `HOST: "nosuch.invalid" cannot be found`,
		},
		"HOST of another": {
			environment: []string{"HOST=192.0.2.1"},
			want:        `HOST: "192.0.2.1" is not an address of this machine: want one that is`,
		},
		"PORT taken": {
			environment: []string{"PORT=" + port},
			want:        "PORT: another program listens on 127.0.0.1:" + port,
		},
		"PORT taken by a name": {
			environment: []string{"HOST=localhost", "PORT=" + port},
			want:        "PORT: another program listens on localhost:" + port,
		},

		"URL with a space": {
			environment: []string{"DATABASE_URL=sqlite:///x.db "},
			want:        "DATABASE_URL: the URL must not begin or end with a space",
		},
		"URL of another database": {
			environment: []string{"DATABASE_URL=mysql://u:" + secret + "@h/d"},
			want:        "DATABASE_URL: not the URL of a known database: want sqlite:",
		},
		"port of Postgres": {
			environment: []string{"DATABASE_URL=postgres://u:" + secret + "@h:99999/d"},
			want:        "DATABASE_URL: the port, or PGPORT: want a whole number",
		},
		"PGPORT": {
			environment: []string{postgres(""), "PGPORT=x"},
			want:        "DATABASE_URL: the port, or PGPORT: want a whole number",
		},
		"sslmode": {
			environment: []string{postgres("sslmode=maybe")},
			want:        "DATABASE_URL: sslmode or PGSSLMODE: want disable,",
		},
		"PGSSLMODE": {
			environment: []string{postgres(""), "PGSSLMODE=maybe"},
			want:        "DATABASE_URL: sslmode or PGSSLMODE: want disable,",
		},
		"connect_timeout": {
			environment: []string{postgres("connect_timeout=5s")},
			want:        "DATABASE_URL: connect_timeout or PGCONNECT_TIMEOUT: want",
		},
		"target_session_attrs": {
			environment: []string{postgres("target_session_attrs=rw")},
			want:        "DATABASE_URL: target_session_attrs or PGTARGETSESSIONATTRS: want",
		},
		"sslrootcert missing": {
			environment: []string{postgres("sslrootcert=x.crt")},
			want:        "DATABASE_URL: sslrootcert or PGSSLROOTCERT: " + folder + "/x.crt: no such file",
		},
		"sslrootcert may not be": {
			environment: []string{postgres("sslrootcert=forbidden.crt")}, bound: true,
			want: forbidden("forbidden.crt", "----------"),
		},
		"sslrootcert is none": {
			environment: []string{postgres("sslrootcert=text")},
			want:        "DATABASE_URL: sslrootcert or PGSSLROOTCERT: the file holds no certificate",
		},
		"sslkey missing": {
			environment: []string{postgres("sslcert=text&sslkey=x.key")},
			want:        "DATABASE_URL: sslkey or PGSSLKEY: " + folder + "/x.key: no such file",
		},
		"sslkey alone": {
			environment: []string{postgres("sslkey=text")},
			want:        "DATABASE_URL: sslcert and sslkey: want both or none",
		},
		"PGSERVICEFILE missing": {
			environment: []string{postgres(""), "PGSERVICE=x", "PGSERVICEFILE=y"},
			want:        "DATABASE_URL: servicefile or PGSERVICEFILE: " + folder + "/y: no such file",
		},
		"Postgres host unknown": {
			environment: []string{"DATABASE_URL=postgres://u:" + secret + "@nosuch.invalid/d"},
			want:        "DATABASE_URL: the host cannot be found: correct it (nosuch.invalid: ",
		},
		"Postgres does not listen": {
			environment: []string{"DATABASE_URL=postgres://u:" + secret + "@" + freeAddress(t) + "/d"},
			want: "DATABASE_URL: connection refused: start the server there, or correct host and port " +
				"(Postgres at 127.0.0.1:",
		},
		"Postgres' socket missing": {
			environment: []string{"DATABASE_URL=postgres://u:" + secret + "@/d?host=" + folder},
			want: "DATABASE_URL: no such file or directory: start the server there, or correct host and port " +
				"(Postgres at " + folder + "/.s.PGSQL.5432)",
		},
	}
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil {
		// If the first unprivileged port is at most 1, no port needs a privilege.
		if first, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && first > 1 {
			tests["PORT that needs a privilege"] = startError{
				environment: []string{fmt.Sprint("PORT=", first-1)}, bound: true,
				want: fmt.Sprintf("PORT: this user may not listen on 127.0.0.1:%d (permission denied): "+
					"choose a port from 1024 up", first-1),
			}
		}
	}
	t.Run("all", func(t *testing.T) { // the folder is made readable again when these tests have ended
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test.try(t, folder)
			})
		}
	})
}

// TestStartErrorsOfPostgres has reasons of a Postgres server, or of another program in
// its place.
func TestStartErrorsOfPostgres(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, p *role) (databaseURL, want string){
		"no such database": func(_ *testing.T, p *role) (string, string) {
			p.url.Path = "/missing_" + p.name
			return p.url.String(),
				`DATABASE_URL: database "missing_` + p.name +
					`" does not exist: create it, or correct its name (Postgres at 127.0.0.1:`
		},
		"no such database, with TLS tried before": func(_ *testing.T, p *role) (string, string) {
			p.url.Path = "/missing_" + p.name
			p.url.RawQuery = ""
			return p.url.String(),
				`DATABASE_URL: database "missing_` + p.name +
					`" does not exist: create it, or correct its name (Postgres at 127.0.0.1:`
		},
		"no such user": func(_ *testing.T, p *role) (string, string) {
			p.url.User = url.User("missing")
			return p.url.String(), `DATABASE_URL: role "missing" does not exist: correct the user, or let it in there`
		},
		"user that may not log in": func(t *testing.T, p *role) (string, string) {
			execute(t, p.admin, "ALTER ROLE "+p.name+" NOLOGIN")
			return p.url.String(), `DATABASE_URL: role "` + p.name + `" is not permitted to log in: correct the user`
		},
		"user that may not connect": func(t *testing.T, p *role) (string, string) {
			execute(t, p.admin, "REVOKE CONNECT ON DATABASE "+p.name+" FROM public")
			return p.url.String(),
				`DATABASE_URL: permission denied for database "` + p.name + `": GRANT CONNECT ON DATABASE "` +
					p.name + `" TO "` + p.name + `"`
		},
		"no connection left": func(t *testing.T, p *role) (string, string) {
			execute(t, p.admin, "ALTER ROLE "+p.name+" CONNECTION LIMIT 0")
			return p.url.String(),
				`DATABASE_URL: too many connections for role "` + p.name +
					`": raise that limit, or close other connections`
		},
		"TLS demanded": func(_ *testing.T, p *role) (string, string) {
			p.url.RawQuery = "sslmode=require"
			return p.url.String(),
				"DATABASE_URL: the server has no TLS, which sslmode demands: switch it on there, or change sslmode"
		},
		"unknown parameter": func(_ *testing.T, p *role) (string, string) {
			p.url.RawQuery += "&colour=red"
			return p.url.String(),
				`DATABASE_URL: unrecognized configuration parameter "colour": correct the parameters of the URL`
		},
		"a standby is wanted": func(_ *testing.T, p *role) (string, string) {
			p.url.RawQuery += "&target_session_attrs=standby"
			return p.url.String(),
				"DATABASE_URL: server is not in hot standby mode: target_session_attrs asks for another server"
		},
		"read-only": func(t *testing.T, p *role) (string, string) {
			execute(t, p.admin, "ALTER ROLE "+p.name+" SET default_transaction_read_only = on")
			return p.url.String(),
				`DATABASE_URL: the transactions of the role "` + p.name + `" in the database "` + p.name +
					`" are read-only`
		},
		"encoding LATIN1": func(t *testing.T, p *role) (string, string) {
			return p.withEncoding(t, "LATIN1"),
				`has the encoding LATIN1, which cannot hold every name: create one with ENCODING 'UTF8'`
		},
		"encoding SQL_ASCII": func(t *testing.T, p *role) (string, string) {
			return p.withEncoding(t, "SQL_ASCII"),
				`has the encoding SQL_ASCII, which cannot hold every name: create one with ENCODING 'UTF8'`
		},
		"no schema": func(t *testing.T, p *role) (string, string) {
			execute(t, p.admin, "REVOKE ALL ON SCHEMA public FROM public")
			return p.url.String(),
				`DATABASE_URL: the role "` + p.name +
					`" may use no schema of its search_path: GRANT USAGE, CREATE ON SCHEMA public TO "` + p.name + `"`
		},
		"no right to create tables": func(t *testing.T, p *role) (string, string) {
			execute(t, p.admin, "REVOKE CREATE ON SCHEMA public FROM public")
			return p.url.String(),
				`DATABASE_URL: the role "` + p.name +
					`" may not create tables in the schema "public": GRANT CREATE ON SCHEMA "public" TO "` +
					p.name + `"`
		},
		"no right to insert": func(t *testing.T, p *role) (string, string) {
			p.migrate(t)
			execute(t, p.admin, "REVOKE INSERT, UPDATE ON lock_waiters FROM "+p.name)
			return p.url.String(),
				`DATABASE_URL: the role "` + p.name + `" lacks INSERT, UPDATE on the table lock_waiters: GRANT it`
		},
		"no right to the sequence": func(t *testing.T, p *role) (string, string) {
			p.migrate(t)
			execute(t, p.admin, "REVOKE USAGE ON SEQUENCE lock_events_id_seq FROM "+p.name)
			return p.url.String(),
				`DATABASE_URL: the role "` + p.name +
					`" lacks USAGE on the sequence public.lock_events_id_seq: GRANT it`
		},
		"no right to any table": func(t *testing.T, p *role) (string, string) {
			p.migrate(t)
			execute(t, p.admin, "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "+p.name)
			return p.url.String(), `: start this version once as the owner of the tables, or GRANT what is missing`
		},
		"a closed door": func(t *testing.T, p *role) (string, string) {
			door, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			t.Cleanup(func() { _ = door.Close() })
			go func() {
				for {
					conn, err := door.Accept()
					if err != nil {
						return
					}
					_ = conn.Close()
				}
			}()
			p.url.Host = door.Addr().String()
			return p.url.String(), ": correct host and port if that is not Postgres (Postgres at " + p.url.Host + ")"
		},
		"a standby": func(t *testing.T, p *role) (string, string) {
			primary, err := testdb.NewCluster()
			must(t, err)
			t.Cleanup(func() { must(t, primary.Close()) })
			standby, err := primary.NewStandby()
			must(t, err)
			t.Cleanup(func() { must(t, standby.Close()) })
			return standby.URL("postgres"),
				"DATABASE_URL: this Postgres is a standby, which cannot be written: name its primary"
		},
	}
	for name, prepare := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			databaseURL, want := prepare(t, newRole(t))
			startError{environment: []string{"DATABASE_URL=" + databaseURL}, want: want}.try(t, t.TempDir())
		})
	}
}

// role is a role without rights of its own. A database of the same name exists for it.
type role struct {
	name  string
	url   *url.URL // of the database, for this role
	owner string   // the URL of the database for a superuser
	admin *sql.DB
}

func newRole(t *testing.T) *role {
	t.Helper()
	r := &role{owner: testdb.Postgres(t)}
	r.admin = open(t, "pgx", r.owner)
	must(t, r.admin.QueryRow("SELECT current_database()").Scan(&r.name))
	execute(t, r.admin, "CREATE ROLE "+r.name+" LOGIN")
	t.Cleanup(func() { execute(t, r.admin, "DROP OWNED BY "+r.name+"; DROP ROLE "+r.name) })
	var err error
	r.url, err = url.Parse(r.owner)
	must(t, err)
	r.url.User = url.User(r.name)
	return r
}

// migrate creates the tables as a superuser, and grants the role the rights to use them.
func (r *role) migrate(t *testing.T) {
	t.Helper()
	start(t, r.owner).Stop(t, syscall.SIGTERM)
	execute(t, r.admin, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "+r.name+
		"; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "+r.name)
}

// withEncoding returns the URL of another database with an encoding.
func (r *role) withEncoding(t *testing.T, encoding string) string {
	t.Helper()
	name := r.name + "_" + strings.ToLower(encoding)
	execute(t, r.admin, "CREATE DATABASE "+name+" ENCODING '"+encoding+"' LOCALE 'C' TEMPLATE template0")
	t.Cleanup(func() { execute(t, r.admin, "DROP DATABASE "+name) })
	return strings.Replace(r.owner, "/"+r.name, "/"+name, 1)
}

// TestStartWithRightsOnTheTablesOnly checks that the role that creates the tables and the
// role that uses them may differ.
func TestStartWithRightsOnTheTablesOnly(t *testing.T) {
	t.Parallel()
	r := newRole(t)
	r.migrate(t)
	s := start(t, r.url.String())
	s.release(t, s.acquire(t, "r", "p"))
	s.Stop(t, syscall.SIGTERM)
}

// TestRoleWithAnotherEncoding checks that names are stored unchanged and notified,
// whatever the default encoding of the role's connections is.
func TestRoleWithAnotherEncoding(t *testing.T) {
	t.Parallel()
	r := newRole(t)
	r.migrate(t)
	execute(t, r.admin, "ALTER ROLE "+r.name+" SET client_encoding = 'LATIN1'")
	const name = "Prüfstand 東"
	f := startFleet(t, r.url.String(), 2, "RECHECK_INTERVAL=1h")
	h := f[0].acquire(t, name, "p")
	w := f[1].wait(t, waiting(name, "q"))
	f[0].awaitQueue(t, name, "q")
	f[0].release(t, h)
	w.granted(t)
	var stored string
	must(t, r.admin.QueryRow("SELECT resource_name FROM resource_locks").Scan(&stored))
	if stored != name {
		t.Errorf("stored as %q, want %q", stored, name)
	}
}
