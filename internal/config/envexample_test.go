package config_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/config"
)

const envExample = "../../.env.example"

func TestEnvExampleListsEverySetting(t *testing.T) {
	var want []string
	for field := range reflect.TypeFor[config.Config]().Fields() {
		want = append(want, field.Tag.Get("env")+"="+field.Tag.Get("envDefault"))
	}

	content, err := os.ReadFile(envExample)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	previous := ""
	for line := range strings.SplitSeq(string(content), "\n") {
		if line != "" && !strings.HasPrefix(line, "#") {
			got = append(got, line)
			if !strings.HasPrefix(previous, "# ") {
				t.Errorf("no comment above %s", line)
			}
		}
		previous = line
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines of .env.example (-want +got):\n%s", diff)
	}
}

func TestEnvExampleYieldsTheDefaults(t *testing.T) {
	got, err := config.Load(nil, envExample)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaults(), got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

// The Postgres URL is in a comment, so no other test would find a mistake in it.
func TestEnvExampleShowsThePostgresForm(t *testing.T) {
	content, err := os.ReadFile(envExample)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(content), "\n") {
		commented, found := strings.CutPrefix(line, "# DATABASE_URL=")
		if !found {
			continue
		}
		got, err := config.Load(nil, envFile(t, "DATABASE_URL="+commented))
		if err != nil {
			t.Fatal(err)
		}
		if got.Database.Driver != config.Postgres {
			t.Errorf("got %s", got.Database)
		}
		return
	}
	t.Error("no line starts with # DATABASE_URL=")
}
