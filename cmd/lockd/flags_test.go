package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFlagsThatEndAtOnce(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"version":       {[]string{"-version"}, 0, "lockd "},
		"help":          {[]string{"-h"}, 0, "-env-file"},
		"long help":     {[]string{"--help"}, 0, "-version"},
		"unknown":       {[]string{"-verbose"}, 2, "-verbose"},
		"missing value": {[]string{"-env-file"}, 2, "-env-file"},
		"argument":      {[]string{"serve"}, 2, `"serve"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			p := launch(t, folder, nil, test.args...)
			if code := p.ExitCode(t); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if !strings.Contains(p.Output.String(), test.want) {
				t.Errorf("the output does not contain %q", test.want)
			}
			if made, err := os.ReadDir(folder); err != nil || len(made) > 0 {
				t.Errorf("the folder contains %v, %v", made, err)
			}
		})
	}
}

func TestSettingsFile(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		file        string
		environment []string
		args        []string
		database    string // the file that the server creates
	}{
		"named":   {"some.env", nil, []string{"-env-file", "some.env"}, "from-file.db"},
		"default": {".env", nil, nil, "from-file.db"},
		"the environment wins": {
			".env",
			[]string{"DATABASE_URL=sqlite:///from-environment.db"},
			nil,
			"from-environment.db",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			const settings = "# settings\nPORT=0\nLOG_FORMAT=json\nDATABASE_URL=sqlite:///./from-file.db\n"
			must(t, os.WriteFile(filepath.Join(folder, test.file), []byte(settings), 0o600))
			s := listening(t, launch(t, folder, test.environment, test.args...))
			s.acquire(t, "r", "p")
			databases, err := filepath.Glob(filepath.Join(folder, "*.db"))
			must(t, err)
			if want := filepath.Join(folder, test.database); only(t, databases) != want {
				t.Errorf("the database is %q, want %s", databases, want)
			}
		})
	}
	t.Run("unusable", func(t *testing.T) {
		t.Parallel()
		folder := t.TempDir()
		must(t, os.WriteFile(filepath.Join(folder, "bad.env"),
			[]byte("DATABASE_URL='postgres://u:"+secret+"@h/d\n"), 0o600))
		wantRefusal(t, launch(t, folder, environment("sqlite://"), "-env-file", "bad.env"), "bad.env")
	})
}
