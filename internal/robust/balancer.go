package robust

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"resource-lock-manager/internal/apptest"
)

// balancerFrame is what stands around docs/nginx.conf on a machine. All that nginx writes is below its own folder.
const balancerFrame = `
daemon off;
user root;
worker_processes 2;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path temp;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    uwsgi_temp_path temp;
    scgi_temp_path temp;
%s
}
`

// StartBalancer runs nginx, set up as docs/nginx.conf says, before three servers, and returns its URL. It ends with the test.
// If it does not repeat requests at other servers, clients see every failure.
func StartBalancer(tb testing.TB, repeats bool, servers ...*Server) string {
	tb.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "/usr/sbin/nginx" // where the PATH of an ordinary user does not look
	}
	if _, err := os.Stat(program); err != nil {
		tb.Fatal("this test needs nginx: install Debian's package nginx, or put the program on the PATH")
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "nginx.conf"))
	if err != nil {
		tb.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	text := replaceOnce(tb, string(page), "listen 80;", "listen "+address+";")
	for i, server := range servers {
		text = replaceOnce(tb, text, fmt.Sprintf("server 10.0.0.%d:8000 ", i+1), "server "+server.Front.Address()+" ")
	}
	if !repeats {
		text = replaceOnce(tb, text, "proxy_next_upstream error timeout http_503 non_idempotent;", "proxy_next_upstream off;")
	}
	folder := tb.TempDir()
	config := filepath.Join(folder, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, balancerFrame, text), 0o600); err != nil {
		tb.Fatal(err)
	}

	cmd := exec.Command(program, "-p", folder, "-c", config, "-e", "stderr")
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	// To the master it is the order to end its workers at once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || tb.Failed() {
			tb.Logf("nginx: %v\n%s", err, said.String())
		}
	})
	apptest.Eventually(tb, "nginx listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return "http://" + address
}

func replaceOnce(tb testing.TB, text, old, replacement string) string {
	tb.Helper()
	if n := strings.Count(text, old); n != 1 {
		tb.Fatalf("docs/nginx.conf has %d times %q", n, old)
	}
	return strings.Replace(text, old, replacement, 1)
}
