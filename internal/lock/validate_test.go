package lock_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// broken is what a client can decide by: the field and the rule.
func broken(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var invalid *lock.InvalidError
	if !errors.As(err, &invalid) {
		t.Fatalf("got %v, want an InvalidError", err)
	}
	var rules []string
	for _, f := range invalid.Faults {
		rules = append(rules, f.Field+" "+f.Rule)
		if f.Message == "" {
			t.Errorf("%s %s has no message", f.Field, f.Rule)
		}
	}
	return rules
}

// wantUntouched fails if an invalid request reached the store.
func wantUntouched(t *testing.T, m *memory) {
	t.Helper()
	if m.executed != nil || m.looks != 0 {
		t.Errorf("the store saw an invalid request: %v and %d looks", m.executed, m.looks)
	}
}

func TestNameLimits(t *testing.T) {
	tests := []struct {
		name  string
		value string
		want  []string // the broken rules; none: the name is sound
	}{
		{"one character", "x", nil},
		{"any printable text", `deploy/é 世界 🔒 "quoted" ' % _ \ ; --`, nil},
		{"a space", " ", nil},
		{"255 characters", strings.Repeat("x", 255), nil},
		{"255 characters of three bytes", strings.Repeat("世", 255), nil},
		{"255 characters of four bytes", strings.Repeat("🔒", 255), nil},
		{"the replacement character itself", "\uFFFD", nil},
		{"the last before the control characters", "~", nil},
		{"the first after the control characters", "\u00A0", nil},

		{"empty", "", []string{"string_too_short"}},
		{"256 characters", strings.Repeat("x", 256), []string{"string_too_long"}},
		{"256 characters of two bytes", strings.Repeat("é", 256), []string{"string_too_long"}},
		{"very long", strings.Repeat("x", 1<<20), []string{"string_too_long"}},
		{"NUL", "a\x00b", []string{"string_control_character"}},
		{"line feed at the end", "a\n", []string{"string_control_character"}},
		{"tab at the start", "\ta", []string{"string_control_character"}},
		{"U+001F", "\x1f", []string{"string_control_character"}},
		{"DEL", "a\x7f", []string{"string_control_character"}},
		{"U+0080", "a\u0080", []string{"string_control_character"}},
		{"U+0085, next line", "a\u0085b", []string{"string_control_character"}},
		{"U+009F", "a\u009f", []string{"string_control_character"}},
		{"several control characters are one fault", "\x00\x01\n", []string{"string_control_character"}},
		{"a lone byte", "a\xff", []string{"string_unicode"}},
		{"a character cut off", "世"[:2], []string{"string_unicode"}},
		{"a surrogate", "\xed\xa0\x80", []string{"string_unicode"}},
		{"an overlong NUL", "\xc0\x80", []string{"string_unicode"}},
		{"invalid and a control character", "\xff\x00", []string{"string_unicode", "string_control_character"}},
		{"too long and a control character", strings.Repeat("x", 255) + "\n", []string{"string_too_long", "string_control_character"}},
	}
	requests := []struct {
		name, field string
		send        func(*testing.T, *service.Service, string) error
	}{
		{"acquire, resource", "resource_name", func(t *testing.T, s *service.Service, value string) error {
			_, err := s.Acquire(t.Context(), lock.Request{Resource: value, ProcessID: "p"})
			return err
		}},
		{"acquire, process", "process_id", func(t *testing.T, s *service.Service, value string) error {
			_, err := s.Acquire(t.Context(), lock.Request{Resource: "r", ProcessID: value})
			return err
		}},
		{"check of acquire, resource", "resource_name", func(_ *testing.T, s *service.Service, value string) error {
			return s.CheckAcquire(lock.Acquire{Request: lock.Request{Resource: value, ProcessID: "p"}})
		}},
		{"release, resource", "resource_name", func(t *testing.T, s *service.Service, value string) error {
			return refusedOrInvalid(s.Release(t.Context(), lock.Release{Resource: value, ProcessID: "p"}))
		}},
		{"release, process", "process_id", func(t *testing.T, s *service.Service, value string) error {
			return refusedOrInvalid(s.Release(t.Context(), lock.Release{Resource: "r", ProcessID: value}))
		}},
		{"status", "resource_name", func(t *testing.T, s *service.Service, value string) error {
			_, _, err := s.Status(t.Context(), value)
			return err
		}},
		{"current", "resource_name", func(t *testing.T, s *service.Service, value string) error {
			_, _, _, err := s.Current(t.Context(), value)
			return err
		}},
		{"renew, resource", "resource_name", func(t *testing.T, s *service.Service, value string) error {
			return refusedOrInvalid(s.Renew(t.Context(), lock.Renew{Resource: value, ProcessID: "p", TTL: 1}))
		}},
		{"renew, process", "process_id", func(t *testing.T, s *service.Service, value string) error {
			return refusedOrInvalid(s.Renew(t.Context(), lock.Renew{Resource: "r", ProcessID: value, TTL: 1}))
		}},
		{"force-release, resource", "resource_name", func(t *testing.T, s *service.Service, value string) error {
			return refusedOrInvalid(s.ForceRelease(t.Context(), lock.ForceRelease{Resource: value, Reason: "it hangs"}))
		}},
		{"renew all, process", "process_id", func(t *testing.T, s *service.Service, value string) error {
			_, err := s.RenewAll(t.Context(), value, 1, nil)
			return err
		}},
		{"renew all, listed resource", "holds.1.resource_name", func(t *testing.T, s *service.Service, value string) error {
			_, err := s.RenewAll(t.Context(), "p", 1, []lock.HoldRef{{Resource: "r", Token: 1}, {Resource: value, Token: 1}})
			return err
		}},
		{"release all, process", "process_id", func(t *testing.T, s *service.Service, value string) error {
			_, _, err := s.ReleaseAll(t.Context(), value, nil)
			return err
		}},
		{"release all, listed resource", "holds.1.resource_name", func(t *testing.T, s *service.Service, value string) error {
			_, _, err := s.ReleaseAll(t.Context(), "p", []lock.HoldRef{{Resource: "r", Token: 1}, {Resource: value, Token: 1}})
			return err
		}},
	}
	for _, test := range tests {
		for _, request := range requests {
			t.Run(test.name+"/"+request.name, func(t *testing.T) {
				m := newMemory()
				got := broken(t, request.send(t, service(m), test.value))
				var want []string
				for _, rule := range test.want {
					want = append(want, request.field+" "+rule)
				}
				wantEqual(t, "broken rules", want, got)
				if test.want != nil {
					wantUntouched(t, m)
				}
			})
		}
	}
}

// refusedOrInvalid drops the refusal that a sound request about a free resource gets.
func refusedOrInvalid(_ lock.Outcome, err error) error {
	var notHeld *lock.NotHeldError
	var notLocked *lock.NotLockedError
	if errors.As(err, &notHeld) || errors.As(err, &notLocked) {
		return nil
	}
	return err
}

func TestControlCharacterIsNamed(t *testing.T) {
	for char, want := range map[rune]string{0: "U+0000", '\n': "U+000A", 0x7f: "U+007F", 0x85: "U+0085"} {
		t.Run(want, func(t *testing.T) {
			err := service(newMemory()).CheckAcquire(lock.Acquire{Request: lock.Request{Resource: fmt.Sprintf("a%cb\x01", char), ProcessID: "p"}})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s in it", err, want)
			}
		})
	}
}
