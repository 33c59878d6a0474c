package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"resource-lock-manager/client"
)

func TestExitCode(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{&exitError{exitNo, nil}, 1},
		{fmt.Errorf("wrapped: %w", &exitError{exitConfig, errors.New("x")}), 78},
		{usagef("x"), 64},
		{&client.HeldError{}, 75},
		{&client.LostError{}, 76},
		{errors.Join(errors.New("the command failed"), &client.LostError{}), 76},
		{client.ErrOtherDatabase, 78},
		{&client.APIError{Status: http.StatusUnauthorized}, 77},
		{&client.APIError{Status: http.StatusForbidden}, 77},
		{&client.APIError{Status: http.StatusUnprocessableEntity}, 64},
		{&client.APIError{Status: http.StatusServiceUnavailable}, 69},
		{&client.APIError{Status: http.StatusInternalServerError}, 70},
		{&client.APIError{Status: http.StatusNotFound}, 70},
		{fmt.Errorf("%w; before that: %w", context.Canceled, client.ErrUnavailable), 130},
		{os.ErrClosed, 70},
	} {
		if got := exitCode(test.err); got != test.want {
			t.Errorf("%v: got %d, want %d", test.err, got, test.want)
		}
	}
}

// An answer of a proxy or of another service is reported as an error in one line.
func TestAnswersOfOtherServices(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status int
		code   int
		err    string
	}{
		{http.StatusOK, 70, "200: not an answer of the lock service: <html> a page </html>\n"},
		{http.StatusUnauthorized, 77, "401: <html> a page </html>\n"},
		{http.StatusForbidden, 77, "403: <html> a page </html>\n"},
		{http.StatusNotFound, 70, "404: <html> a page </html>\n"},
		{http.StatusBadGateway, 69, "502: <html> a page </html>\n"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(test.status)
			fmt.Fprint(w, "<html>\na page\n</html>")
		}))
		t.Cleanup(server.Close)
		for _, args := range requestingCommands {
			timeout := "30s"
			if test.code == exitUnavailable { // the request is retried until then
				timeout = "500ms"
			}
			r := lockctl(t, nil, server.URL, append(args, "--server-timeout", timeout)...)
			stderr := "lockctl: the lock service answered " + test.err
			if r.code != test.code || r.err != stderr || r.out != "" {
				t.Errorf("%d %q: exit code %d, stdout %q, stderr %q, want %d and %q",
					test.status, args, r.code, r.out, r.err, test.code, stderr)
			}
		}
	}
}
