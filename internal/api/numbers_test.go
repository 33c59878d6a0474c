package api_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"resource-lock-manager/internal/wire"
)

// spelled returns the notations of JSON for a positive whole number.
func spelled(n int64) []string {
	digits := fmt.Sprint(n)
	return []string{
		digits, digits + ".0", digits + ".000000000000000000000", digits + "e0", digits + "E+0", digits + "e-0",
		digits + "0e-1",
		digits + strings.Repeat("0", 400) + "e-400", digits[:1] + "." + digits[1:] + "e" + fmt.Sprint(len(digits)-1),
		"0." + digits + "E+" + fmt.Sprint(len(digits)), "0.000" + digits + "e" + fmt.Sprint(len(digits)+3),
	}
}

// TestWholeNumbers: a token is read exactly, in whatever notation a client's JSON library
// writes it. Each token has more digits than some floats have.
func TestWholeNumbers(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		token := s.hold(t, "r", "p", nil).FencingToken
		for _, text := range spelled(token) {
			a := s.call(t, "POST", "/locks/renew",
				`{"resource_name":"r","process_id":"p","ttl_seconds":600,"fencing_token":`+text+`}`)
			if got := dataOf[wire.Renewed](t, a).FencingToken; got != token {
				t.Errorf("%s: renewed %d", text, got)
			}
			a = s.call(t, "POST", "/locks/renew-all",
				`{"process_id":"p","ttl_seconds":600,"holds":[{"resource_name":"r","fencing_token":`+text+`}]}`)
			if got := dataOf[wire.RenewedAll](t, a); len(got.Lost) != 0 {
				t.Errorf("%s: %+v", text, got)
			}
			a = s.call(t, "GET", "/locks/validate?resource_name=r&fencing_token="+url.QueryEscape(text), "")
			if got := dataOf[wire.Validity](t, a); !got.Valid || got.FencingToken != token {
				t.Errorf("%s: %+v", text, got)
			}
		}
		for _, text := range spelled(token + 1) {
			s.call(t, "POST", "/locks/renew",
				`{"resource_name":"r","process_id":"p","ttl_seconds":600,"fencing_token":`+text+`}`).
				wantCode(t, 404, wire.CodeTokenMismatch)
			s.delete(t, "/locks/release", "resource_name", "r", "process_id", "p", "fencing_token", text).
				wantCode(t, 404, wire.CodeTokenMismatch)
		}
		for _, text := range spelled(9223372036854775807) {
			got := dataOf[wire.Validity](t, s.get(t, "/locks/validate", "resource_name", "r", "fencing_token", text))
			if got.FencingToken != 9223372036854775807 {
				t.Errorf("%s: read as %d", text, got.FencingToken)
			}
		}
		s.delete(t, "/locks/release", "resource_name", "r", "process_id", "p", "fencing_token",
			fmt.Sprint(token)+".0").want(t, 200)
	})
}

func TestWholeNumbersOfAPage(t *testing.T) {
	onBoth(t, func(t *testing.T, s *server) {
		s.hold(t, "a", "p", nil)
		s.hold(t, "b", "p", nil)
		for _, path := range []string{"/locks/all-locked", "/locks/history"} {
			for _, text := range []string{"1", "1.0", "10e-1", "0.1e1", "01", "%2B1"} {
				a := s.call(t, "GET", path+"?limit="+text, "").want(t, 200)
				if n := strings.Count(a.body, `"process_id"`); n != 1 {
					t.Errorf("%s with the limit %s: %d entries", path, text, n)
				}
			}
			s.call(t, "GET", path+"?limit=1e3", "").want(t, 200)
		}
	})
}

// TestNumbersOfSeconds tests every notation of JSON for a number.
func TestNumbersOfSeconds(t *testing.T) {
	tests := []struct {
		text string
		want time.Duration
	}{
		{"3e2", 300 * time.Second},
		{"3.0E+2", 300 * time.Second},
		{"300000e-3", 300 * time.Second},
		{"0.5", 500 * time.Millisecond},
		{"3155760000.0", maxTTL},
		{"0.0000001", time.Microsecond}, // never 0
		{"1e-999999999999", time.Microsecond},
		{"0." + strings.Repeat("0", 2000) + "1", time.Microsecond},
	}
	onBoth(t, func(t *testing.T, s *server) {
		for i, test := range tests {
			a := s.call(t, "POST", "/locks/request",
				fmt.Sprintf(`{"resource_name":"r%d","process_id":"p","ttl_seconds":%s,"wait_seconds":-0}`, i,
					test.text))
			got := dataOf[wire.Acquired](t, a)
			if ttl := time.Time(*got.ExpiresAt).Sub(time.Time(got.LockedAt)); ttl != test.want {
				t.Errorf("%.20s: the lock lives %v, want %v", test.text, ttl, test.want)
			}
		}
		for _, text := range []string{"-0", "-0.0", "0e5", "null"} {
			s.call(t, "POST", "/locks/request",
				`{"resource_name":"r","process_id":"p","min_hold_seconds":`+text+`}`).want(t, 200)
			s.release(t, "r", "p").want(t, 200)
		}
	})
}

// TestTokensSayWhatWouldBeRight: a token that is not a whole number or too large is
// refused with a message that says what a token is.
func TestTokensSayWhatWouldBeRight(t *testing.T) {
	const want = "Input should be a fencing token: a whole number greater than 0 and less than 2^63"
	s := realServer(t, "sqlite")
	for _, text := range []string{"1.5", "9223372036854775808", "1e999999999", "0", "-1"} {
		for _, a := range []answer{
			s.call(t, "POST", "/locks/renew",
				`{"resource_name":"r","process_id":"p","ttl_seconds":60,"fencing_token":`+text+`}`),
			s.get(t, "/locks/validate", "resource_name", "r", "fencing_token", text),
		} {
			if got := decode[wire.ValidationFailure](t, a.want(t, 422).body).Detail; len(got) != 1 ||
				got[0].Msg != want {
				t.Errorf("%s: got %s", text, a.body)
			}
		}
	}
}
