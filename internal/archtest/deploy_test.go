package archtest_test

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"resource-lock-manager/internal/config"
	"resource-lock-manager/internal/version"
)

// deployFile returns a file of docs/deploy.
func deployFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// systemd accepts the unit without a warning, and gives the server the time to stop.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	unit := deployFile(t, "lockd.service")
	if err := verifyUnit(t, unit); err != "" {
		t.Errorf("systemd-analyze verify: %s", err)
	}
	if verifyUnit(t, strings.Replace(unit, "\nUMask=", "\nUMaskk=", 1)) == "" {
		t.Error("systemd-analyze accepts an option that does not exist")
	}

	settings, err := config.Load(nil, "")
	if err != nil {
		t.Fatal(err)
	}
	stop := regexp.MustCompile(`(?m)^TimeoutStopSec=(\w+)$`).FindStringSubmatch(unit)
	if stop == nil {
		t.Fatal("the unit has no TimeoutStopSec")
	}
	if limit, err := time.ParseDuration(stop[1]); err != nil || limit <= settings.ShutdownTimeout {
		t.Errorf("TimeoutStopSec is %s (%v), SHUTDOWN_TIMEOUT %v", stop[1], err, settings.ShutdownTimeout)
	}
	url := regexp.MustCompile(`(?m)^Environment=(DATABASE_URL=\S+)$`).FindStringSubmatch(unit)
	if url == nil {
		t.Fatal("the unit has no DATABASE_URL")
	}
	settings, err = config.Load(url[1:], "")
	if err != nil || settings.Database.Source != "/var/lib/lockd/locks.db" {
		t.Errorf("the database of the unit is %v, %v", settings.Database, err)
	}
}

// verifyUnit returns what systemd-analyze has to say against a unit.
func verifyUnit(t *testing.T, unit string) string {
	t.Helper()
	const program = "/usr/local/bin/lockd" // systemd-analyze wants it to exist
	if !strings.Contains(unit, program) {
		t.Fatalf("the unit does not start %s", program)
	}
	path := filepath.Join(t.TempDir(), "lockd.service")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(unit, program, "/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", path).CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatalf("systemd-analyze: %v", err)
	}
	return string(out)
}

// The Containerfile builds programs that need no C library, and its settings are valid.
func TestContainerfile(t *testing.T) {
	t.Parallel()
	text := strings.ReplaceAll(deployFile(t, "Containerfile"), "\\\n", "")
	goMod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	language := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(goMod)
	if language == nil || !strings.Contains(text, "FROM golang:"+string(language[1])+"-") {
		t.Errorf("the Containerfile does not use the version of Go of go.mod, %q", language)
	}
	folder := t.TempDir()
	for _, program := range []string{"lockd", "lockctl"} {
		build := regexp.MustCompile(`(?m)^RUN (.*go build .* -o )/out/bin/ (\./cmd/` + program + `)$`).FindStringSubmatch(text)
		if build == nil {
			t.Fatalf("the Containerfile does not build %s", program)
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-c", build[1]+folder+"/ "+build[2])
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
		path := filepath.Join(folder, program)
		binary, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		libraries, err := binary.ImportedLibraries()
		if err != nil || len(libraries) > 0 || binary.Section(".interp") != nil {
			t.Errorf("%s is not static: %q, %v", program, libraries, err)
		}
		_ = binary.Close()
		out, err := exec.CommandContext(t.Context(), path, "--version").Output()
		if err != nil || !strings.HasPrefix(string(out), program+" "+version.Number) {
			t.Errorf("%s --version: %q, %v", program, out, err)
		}
	}

	_, environment, ok := strings.Cut(text, "\nENV ")
	if !ok {
		t.Fatal("the Containerfile sets no environment")
	}
	environment, _, _ = strings.Cut(environment, "\n")
	settings, err := config.Load(strings.Fields(environment), "")
	if err != nil || settings.Address() != "0.0.0.0:8000" || settings.Database.Source != "/data/locks.db" {
		t.Errorf("the settings of the image: %+v, %v", settings, err)
	}
}
