package apptest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// nginxFrame is the configuration around an http section. nginx writes only below its own
// folder.
const nginxFrame = `
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

// StartNginx runs nginx with an http section, which must listen on the given address. It
// returns nginx's URL. It ends with the test.
func StartNginx(tb testing.TB, section func(address string) string) string {
	tb.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "/usr/sbin/nginx" // the PATH of an ordinary user does not contain this folder
	}
	if _, err := os.Stat(program); err != nil {
		tb.Fatal("this test needs nginx: install Debian's package nginx, or put the program on the PATH")
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	folder := tb.TempDir()
	config := filepath.Join(folder, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxFrame, section(address)), 0o600); err != nil {
		tb.Fatal(err)
	}

	cmd := exec.Command(program, "-p", folder, "-c", config, "-e", "stderr")
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	// SIGTERM makes the master end its workers at once.
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
	Eventually(tb, "nginx listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return "http://" + address
}
