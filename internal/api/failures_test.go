package api

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/wire"
)

func TestFailureOf(t *testing.T) {
	now := time.Date(2024, 1, 15, 10, 30, 0, 0, time.UTC)
	endless := lock.Hold{ProcessID: "p", Token: 7, LockedAt: now}
	expiring := endless
	expiring.ExpiresAt = now.Add(1500 * time.Millisecond)
	holder := func(h lock.Hold) *wire.Hold {
		hold := holdOf(h, now)
		return &hold
	}
	plain := func(status int, code wire.Code, detail, retryAfter string) failure {
		return failure{status: status, body: wire.Failure{Detail: detail, Code: code}, retryAfter: retryAfter}
	}
	notHeld := func(reason lock.NotHeldReason) error {
		return &lock.NotHeldError{Resource: "r", ProcessID: "p", Reason: reason}
	}
	logged := func(f failure, err error) failure {
		f.log = err
		return f
	}
	internal := func(err error) failure {
		return failure{
			status: 500, log: err,
			body: wire.Failure{Detail: "Internal Server Error", Code: wire.CodeInternal, RequestID: "id"},
		}
	}
	faults := faults{{Loc: []any{"body", "x"}, Msg: "Field required", Type: "missing"}}
	unavailable := fmt.Errorf("%w: dial tcp", service.ErrUnavailable)
	overloaded := fmt.Errorf("%w: 1024 commands", service.ErrOverloaded)
	unknown := errors.Join(service.ErrUnavailable, service.ErrOutcomeUnknown)
	bug := errors.New("a bug")
	neverAsked := &lock.InvalidError{Faults: []lock.Fault{{Path: []any{"x"}, Rule: lock.Required}}}

	tests := []struct {
		err  error
		want failure
	}{
		{&lock.HeldError{Resource: "r", Holder: &expiring, Waiters: 2, Now: now}, failure{
			status: 409, retryAfter: "2",
			body: &wire.Conflict{
				Detail: "Resource 'r' is already locked by process 'p'", Code: wire.CodeAlreadyLocked,
				Holder: holder(expiring), Waiters: 2, RetryAfterSeconds: new(1.5),
			},
		}},
		{&lock.HeldError{Resource: "r", Holder: &endless, Now: now}, failure{
			status: 409,
			body: &wire.Conflict{
				Detail: "Resource 'r' is already locked by process 'p'", Code: wire.CodeAlreadyLocked,
				Holder: holder(endless),
			},
		}},
		{&lock.HeldError{Resource: "r", Next: "q", Waiters: 1, Now: now}, failure{
			status: 409,
			body: &wire.Conflict{
				Detail: "Resource 'r' is reserved for process 'q', which waits for it", Code: wire.CodeReserved,
				Waiters: 1,
			},
		}},
		{&lock.HeldError{Resource: "r", Kind: lock.Superseded, Holder: &endless, Now: now}, failure{
			status: 409,
			body: &wire.Conflict{
				Detail: "A later request with the same request_id has taken the place of this one in the queue of resource 'r'",
				Code:   wire.CodeSuperseded, Holder: holder(endless),
			},
		}},
		{&lock.HeldError{Resource: "r", Kind: lock.TimedOut, Holder: &expiring, Now: now, Waited: time.Second}, failure{
			status: 409, retryAfter: "2",
			body: &wire.Conflict{
				Detail: "Resource 'r' is still locked by process 'p'", Code: wire.CodeWaitTimeout,
				Holder: holder(expiring), WaitedSeconds: new(1.0), RetryAfterSeconds: new(1.5),
			},
		}},
		{&lock.HeldError{
			Resource: "r", Kind: lock.TimedOut, Holder: &endless, Now: now, KeptUntil: now.Add(time.Minute),
			Position: 3,
		}, failure{
			status: 409, retryAfter: "1",
			body: &wire.Conflict{
				Detail: "Resource 'r' is still locked by process 'p'", Code: wire.CodeWaitTimeout,
				Holder: holder(endless), WaitedSeconds: new(0.0), RetryAfterSeconds: new(1.0),
				PlaceKeptUntil: wire.OptionalTime(now.Add(time.Minute)), Position: new(3),
			},
		}},

		{
			notHeld(lock.ReasonUnknown),
			plain(404, wire.CodeNotHeld, "No active lock found for resource 'r' by process 'p'", ""),
		},
		{notHeld(lock.ReasonTokenMismatch), plain(404, wire.CodeTokenMismatch,
			"No active lock found for resource 'r' by process 'p' with this fencing token", "")},
		{notHeld(lock.ReasonReleased), plain(404, wire.CodeAlreadyReleased,
			"No active lock found for resource 'r' by process 'p'", "")},
		{notHeld(lock.ReasonForceReleased), plain(404, wire.CodeForceReleased,
			"No active lock found for resource 'r' by process 'p': it was force-released", "")},
		{
			notHeld(lock.ReasonExpired),
			plain(404, wire.CodeExpired, "No active lock found for resource 'r' by process 'p'", ""),
		},
		{&lock.NotLockedError{Resource: "r"}, plain(404, wire.CodeNotLocked, "Resource 'r' is not locked", "")},
		{&lock.OtherHoldError{Resource: "r", Holder: endless}, plain(404, wire.CodeTokenMismatch,
			"Resource 'r' is not locked with this fencing token, but by process 'p' with the fencing token 7", "")},

		{&lock.QueueFullError{Resource: "r"}, plain(503, wire.CodeQueueFull,
			"Too many requests wait already: there is no place left in the queue of resource 'r'", "1")},
		{
			&lock.PlaceLostError{Resource: "r"},
			plain(503, wire.CodePlaceLost, "The place in the queue of resource 'r' was lost "+
				"while this server could not reach the database: repeat the request", "1"),
		},

		{errBodyTooLarge, plain(413, wire.CodeBodyTooLarge, "The body is larger than 65536 bytes", "")},
		{errMediaType, plain(415, wire.CodeUnsupportedMedia,
			"The body must be JSON, declared by the header Content-Type: application/json", "")},
		{errCharset, plain(415, wire.CodeUnsupportedMedia,
			"The body must be JSON in UTF-8: the header Content-Type names another charset", "")},
		{errEncoding, plain(415, wire.CodeUnsupportedMedia,
			"The body must not be compressed: of Content-Encoding only identity is accepted", "")},
		{&invalidError{faults: faults}, failure{
			status: 422, body: wire.ValidationFailure{Detail: faults, Code: wire.CodeValidation},
		}},

		{unavailable, logged(plain(503, wire.CodeUnavailable, "The database is not available", "1"), unavailable)},
		{overloaded, logged(plain(503, wire.CodeOverloaded, "Too many requests are waiting for the database", "1"),
			overloaded)},
		{
			service.ErrStopping,
			logged(plain(503, wire.CodeStopping, "The server is shutting down", "1"), service.ErrStopping),
		},
		{unknown, logged(plain(503, wire.CodeOutcomeUnknown,
			"The database did not confirm the change: it may or may not have happened", "1"), unknown)},

		{bug, internal(bug)},
		{context.DeadlineExceeded, internal(context.DeadlineExceeded)},
		// The API validates every request itself, so that the service's own refusal is a
		// bug.
		{neverAsked, internal(neverAsked)},
		{lock.ErrNotWaiting, internal(lock.ErrNotWaiting)},
	}
	covered := map[string]bool{}
	for _, test := range tests {
		covered[fmt.Sprintf("%T", test.err)] = true
		for _, err := range []error{test.err, fmt.Errorf("wrapped: %w", test.err)} {
			got := failureOf(err, "id")
			if (got.log == nil) != (test.want.log == nil) || test.want.log != nil &&
				!errors.Is(got.log, test.want.log) {
				t.Errorf("%v: logged %v, want %v", err, got.log, test.want.log)
			}
			diff := cmp.Diff(test.want, got, cmp.AllowUnexported(failure{}), cmpopts.IgnoreFields(failure{}, "log"),
				cmp.Comparer(func(a, b wire.Time) bool { return time.Time(a).Equal(time.Time(b)) }))
			if diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		}
	}
	for _, name := range errorTypes(t) {
		if !covered["*lock."+name] {
			t.Errorf("no test of lock.%s", name)
		}
	}
}

// errorTypes returns the names of the error types of package lock.
func errorTypes(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, file := range []string{"errors.go", "validate.go"} {
		source, err := os.ReadFile("../lock/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`(?m)^type (\w+Error) `).FindAllStringSubmatch(string(source), -1) {
			names = append(names, match[1])
		}
	}
	if len(names) < 7 {
		t.Fatal("found only " + strings.Join(names, ", "))
	}
	return names
}
