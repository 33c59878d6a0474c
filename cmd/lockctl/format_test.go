package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestEscape(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                        "",
		"deploy/web":              "deploy/web",
		"Ärger mit 漢字 🔒":          "Ärger mit 漢字 🔒",
		`C:\x1b "quoted"`:         `C:\x1b "quoted"`,
		"\x1b[31mred":             `\x1b[31mred`,
		"a\nb\rc\td\x00\x7f":      `a\x0ab\x0dc\x09d\x00\x7f`,
		"csi \u009b31m":           `csi \u009b31m`,
		"cut \xe6\xbc off":        `cut \xe6\xbc off`,
		"\u202egpj.exe\u2066":     `\u202egpj.exe\u2066`,
		"no\u00a0break\u200bzero": `no\u00a0break\u200bzero`,
		"tag \U000e0041":          `tag \U000e0041`,
		"replaced \ufffd":         "replaced \ufffd",
	} {
		if got := escape(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestRounded(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0:                             "0s",
		12345 * time.Microsecond:      "12ms",
		4321 * time.Millisecond:       "4.3s",
		9999 * time.Millisecond:       "10s",
		time.Minute:                   "1m",
		70 * time.Second:              "1m10s",
		600*time.Second + 1:           "10m",
		time.Hour:                     "1h",
		2*time.Hour + 10*time.Minute:  "2h10m",
		20*time.Hour + 29*time.Second: "20h",
		24 * time.Hour:                "1d",
		82 * time.Hour:                "3d10h",
		100 * 24 * time.Hour:          "100d",
	} {
		if got := rounded(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

// hostile is the JSON form of a text that would control a terminal.
const hostile = `\u001b]0;owned\u0007\u009b2J\r\nlockctl: forged\u202e`

// hostileServer has hostile text in every text of its answers.
func hostileServer(tb testing.TB, status int) string {
	tb.Helper()
	const times = `"locked_at":"2026-01-31T08:00:00+00:00","expires_at":null,"expires_in_seconds":null,"fencing_token":7,`
	hold := strings.ReplaceAll(`"process_id":"X","reason":"X","metadata":{"X":"X"},`+times+`"renewals":0`, "X", hostile)
	answers := map[string]string{
		"/locks/status": `{"resource_name":"X","is_locked":true,"locked_by":"X","reason":"X","metadata":{"X":"\u009b"},` +
			times + `"waiters":1,"renewals":3}`,
		"/locks/all-locked": `{"locks":[{"id":1,"resource_name":"X",` + hold + `}]}`,
		"/locks/queue": `{"waiters":[{"position":1,"process_id":"X","waiting_since":"2026-01-31T08:00:00Z",
			"waited_seconds":1,"reason":"X"}]}`,
		"/locks/history": `{"events":[{"id":1,"event":"X","at":"2026-01-31T08:00:00Z","resource_name":"X",
			"process_id":"X","reason":"X","by":"X"}]}`,
		"/locks/renew":         `{"resource_name":"X",` + hold + `}`,
		"/locks/release":       `{}`,
		"/locks/validate":      `{"valid":true}`,
		"/locks/force-release": `{"resource_name":"X","holder":{` + hold + `}}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status != http.StatusOK {
			w.WriteHeader(status)
			body := strings.ReplaceAll(`{"code":"X","detail":"X","holder":{"process_id":"X"}}`, `"X"`, `"`+hostile+`"`)
			_, _ = w.Write([]byte(body))
			return
		}
		data := strings.ReplaceAll(answers[r.URL.Path], `"X"`, `"`+hostile+`"`)
		_, _ = w.Write([]byte(`{"success":true,"message":"","data":` + data + `}`))
	}))
	tb.Cleanup(server.Close)
	return server.URL
}

// silentServer accepts requests but does not answer them.
func silentServer(tb testing.TB, requested chan<- struct{}) string {
	tb.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case requested <- struct{}{}:
		default:
		}
		<-r.Context().Done()
	}))
	tb.Cleanup(server.Close)
	return server.URL
}

// requestingCommands has a command line of every command that sends a request.
var requestingCommands = [][]string{
	{"status", "web"},
	{"list"},
	{"list", "--json"},
	{"queue", "web"},
	{"history", "web"},
	{"renew", "web", "--ttl", "1m", "-v"},
	{"release", "web", "-v"},
	{"validate", "web", "7"},
	{"force-release", "web", "--reason", "gone", "--yes"},
}

// Text of other clients is escaped in output and in errors.
func TestTextOfOtherClientsIsEscaped(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 404, 409, 500} {
		base := hostileServer(t, status)
		for _, args := range requestingCommands {
			r := lockctl(t, nil, base, args...)
			if (r.code == 0) != (status == 200) {
				t.Errorf("%d %q: exit code %d: %s", status, args, r.code, r.err)
			}
			shown := r.out
			if args[len(args)-1] == "--json" {
				shown = ""
			}
			for _, text := range []string{shown, r.err} {
				control := func(c rune) bool { return c != '\n' && !unicode.IsPrint(c) }
				if i := strings.IndexFunc(text, control); i >= 0 {
					t.Errorf("%d %q: prints %q", status, args, text[i:])
				}
				for line := range strings.Lines(text) {
					if strings.HasPrefix(line, "lockctl: forged") {
						t.Errorf("%d %q: a forged line in %q", status, args, text)
					}
				}
			}
			if status == 200 && args[0] != "release" && args[0] != "validate" &&
				!strings.Contains(r.out+r.err, "owned") {
				t.Errorf("%q: prints none of the text, so the test proves nothing: %q", args, r.out+r.err)
			}
		}
	}
}
