package robust_test

import (
	"slices"
	"testing"
	"time"

	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/wire"
)

// checkerCase is a history and what the checkers must find in it.
type checkerCase struct {
	name    string
	history []robust.Operation
	faults  []robust.Fault
	model   string // the guarantee that CheckModel names; empty: it finds nothing
	rules   string // the guarantee that CheckInvariants names
}

func checkerCases() []checkerCase {
	a, b := hold("a", 10, 1, 0), hold("b", 20, 10, 0)
	short := hold("a", 10, 1, 9) // has expired when b gets the lock
	long := hold("a", 10, 1, 50) // is short, renewed
	return []checkerCase{
		{name: "nothing"},
		{name: "one hold after the other", history: history(
			acquired(0, 2, a), denied("b", 3, 4, a), status(3, 4, a), released(5, 6, 5, a),
			status(7, 8, noHold), acquired(9, 11, b))},
		{name: "two holds at once", model: "G1", rules: "G1", history: history(
			acquired(0, 2, a), acquired(9, 11, b))},
		{name: "two holds at once, and the first continues", model: "G1", rules: "G1", history: history(
			acquired(0, 2, a), acquired(9, 11, b), renewed(12, 13, 12, a, 50))},
		{name: "two holds at once by the service's clock only", model: "G1", rules: "G1", history: history(
			acquired(0, 20, a), acquired(0, 20, b), released(12, 20, 15, a))},
		{name: "two holds at once by the clients' clock only", model: "G6", rules: "G1", history: history(
			acquired(0, 2, hold("a", 10, 1, 0)), acquired(3, 4, b), released(5, 6, 2, a))},
		{name: "two holds at once, and the first acquire takes long", model: "G1", rules: "G1", history: history(
			acquired(0, 30, a), acquired(3, 11, b), released(31, 32, 31, b))},

		{name: "expired", history: history(acquired(0, 2, short), acquired(3, 11, b))},
		{name: "expired, and refused as not held", history: history(
			acquired(0, 2, short), status(9, 10, noHold),
			notHeld(robust.Release, 9, 10, "a", 10, wire.CodeNotHeld), acquired(9, 11, b))},
		{name: "expired, and refused as expired", history: history(
			acquired(0, 2, short), acquired(3, 11, b),
			notHeld(robust.Release, 12, 13, "a", 10, wire.CodeExpired),
			notHeld(robust.Renew, 12, 13, "a", 10, wire.CodeExpired))},
		{name: "refused as expired after it expired unseen", history: history(
			acquired(0, 2, short), status(9, 10, noHold),
			notHeld(robust.Release, 9, 10, "a", 0, wire.CodeExpired))},
		{name: "refused as expired before it expires", model: "G2", rules: "G2", history: history(
			acquired(0, 2, short), notHeld(robust.Release, 3, 4, "a", 10, wire.CodeExpired),
			renewed(5, 6, 5, short, 24))},
		{name: "refused as expired, although it never expires", model: "G2", rules: "G5", history: history(
			acquired(0, 2, a), notHeld(robust.Release, 3, 4, "a", 10, wire.CodeExpired))},
		{name: "refused as expired, although it was released", rules: "G5", history: history(
			acquired(0, 2, short), released(3, 5, 4, short),
			notHeld(robust.Release, 6, 7, "a", 10, wire.CodeExpired))},
		{name: "refused as released, although it expired", rules: "G5", history: history(
			acquired(0, 2, short), acquired(3, 11, b),
			notHeld(robust.Renew, 12, 13, "a", 10, wire.CodeAlreadyReleased))},
		{name: "refused as released after it expired unseen", model: "G5", rules: "G5", history: history(
			acquired(0, 2, short), notHeld(robust.Release, 10, 11, "a", 10, wire.CodeAlreadyReleased))},
		{name: "refused as expired, although the process never had it", rules: "G5", history: history(
			acquired(0, 2, a), released(3, 4, 3, a),
			notHeld(robust.Release, 5, 6, "c", 7, wire.CodeExpired))},
		{name: "refused as released, after its release was lost", history: history(
			acquired(0, 2, short), released(3, 4, 0, short).unknown(),
			notHeld(robust.Release, 5, 6, "a", 10, wire.CodeAlreadyReleased))},
		{name: "refused as expired, after its release was lost", history: history(
			acquired(0, 2, short), released(3, 4, 0, short).unknown(), acquired(5, 11, b),
			notHeld(robust.Release, 12, 13, "a", 10, wire.CodeExpired))},
		{name: "refused as force-released", model: "G5", rules: "G5", history: history(
			acquired(0, 2, short), acquired(3, 11, b),
			notHeld(robust.Renew, 12, 13, "a", 10, wire.CodeForceReleased))},
		{name: "free before it expires", rules: "G2", history: history(
			acquired(0, 2, hold("a", 10, 1, 100)), status(50, 51, noHold))},
		{name: "refused as not held before it expires", rules: "G2", history: history(
			acquired(0, 2, hold("a", 10, 1, 100)), notHeld(robust.Renew, 50, 51, "a", 10, wire.CodeNotHeld))},
		{name: "granted to another process before it expires", model: "G1", rules: "G1", history: history(
			acquired(0, 2, hold("a", 10, 1, 11)), acquired(3, 11, b))},
		{name: "renewed", history: history(
			acquired(0, 2, short), renewed(3, 5, 4, short, 24), status(20, 21, hold("a", 10, 1, 24)),
			acquired(22, 26, hold("b", 20, 25, 0)))},
		{name: "granted to another process before the renewed end", model: "G1", rules: "G1", history: history(
			acquired(0, 2, short), renewed(3, 5, 4, short, 24), acquired(6, 11, b))},
		{name: "renewed after its end", model: "G5", rules: "G5", history: history(
			acquired(0, 2, short), renewed(10, 12, 11, short, 24))},
		{name: "released after its end", model: "G5", rules: "G5", history: history(
			acquired(0, 2, short), released(10, 12, 11, short))},
		{name: "a status after the renewal shows the old end", model: "G2", history: history(
			acquired(0, 2, short), renewed(3, 5, 4, short, 24), status(6, 7, short))},

		// The old end is at 9.
		{name: "a renewal is committed after the old end, and a status in between says free", history: history(
			acquired(0, 2, short), renewed(3, 15, 4, short, 50), status(10, 11, noHold), status(16, 17, long),
			released(18, 20, 19, long), acquired(21, 23, hold("b", 30, 22, 0)))},
		{name: "the same, and only the renewal shows the new end", history: history(
			acquired(0, 2, short), renewed(3, 15, 4, short, 50), status(10, 11, noHold))},
		{name: "the same, after a wait", history: history(
			acquired(0, 2, short).queuedAt(0), renewed(3, 15, 4, short, 50), status(10, 11, noHold),
			status(12, 13, noHold), status(16, 17, long))},
		{name: "two renewals, each committed after the end before", history: history(
			acquired(0, 2, short), renewed(3, 15, 4, short, 20), status(10, 11, noHold),
			renewed(16, 30, 17, short, 50), status(16, 17, hold("a", 10, 1, 20)), status(22, 23, noHold),
			released(40, 42, 41, long))},
		{name: "a renewal, and a status before the old end says free", model: "G2", rules: "G2", history: history(
			acquired(0, 2, short), renewed(3, 15, 4, short, 50), status(5, 6, noHold), status(16, 17, long))},
		{name: "a renewal, and a status before the renewal says free", model: "G2", rules: "G2", history: history(
			acquired(0, 2, short), status(3, 4, noHold), renewed(5, 15, 6, short, 50))},
		{name: "a renewal, and a status after its answer says free", model: "G2", rules: "G2", history: history(
			acquired(0, 2, short), renewed(3, 10, 4, short, 50), status(11, 12, noHold),
			status(16, 17, long))},
		{
			name: "a renewal, and a status says free after another showed the new end", model: "G2", rules: "G2",
			history: history(
				acquired(0, 2, short), renewed(3, 20, 4, short, 50), status(10, 11, long), status(12, 13, noHold),
				status(16, 17, long)),
		},
		{
			name: "a renewal is being committed, and another process is refused as free", model: "G2", rules: "G2",
			history: history(
				acquired(0, 2, short), renewed(3, 15, 4, short, 50), denied("b", 10, 11, noHold),
				status(16, 17, long)),
		},
		{
			name: "a renewal is being committed, and another process gets the lock", model: "G1", rules: "G1",
			history: history(
				acquired(0, 2, short), renewed(3, 15, 4, short, 50), acquired(9, 11, b), status(16, 17, long)),
		},
		{name: "a renewal is being committed, and the release is refused", model: "G2", rules: "G2", history: history(
			acquired(0, 2, short), renewed(3, 15, 4, short, 50),
			notHeld(robust.Release, 10, 11, "a", 10, wire.CodeExpired), status(16, 17, long))},
		{
			name: "a renewal of a hold that never expires, and a status says free", model: "G2", rules: "G2",
			history: history(
				acquired(0, 2, a), renewed(3, 15, 4, a, 50), status(10, 11, noHold), status(16, 17, long)),
		},
		{name: "a renewal was lost, committed after the old end, and a status in between says free", history: history(
			acquired(0, 2, short), renewed(3, 5, 4, short, 50).unknown(), status(10, 11, noHold),
			status(16, 17, long), released(18, 20, 19, long))},
		{
			name: "a renewal was lost, and a status before the old end says free", model: "G2", rules: "G2",
			history: history(
				acquired(0, 2, short), renewed(3, 4, 4, short, 50).unknown(), status(5, 6, noHold),
				status(16, 17, long)),
		},
		{
			name: "a renewal was lost, and a status says free after another one has shown the new end", rules: "G2",
			history: history(
				acquired(0, 2, short), renewed(3, 5, 4, short, 50).unknown(), status(10, 11, long),
				status(12, 13, noHold), status(16, 17, long)),
		},

		{name: "lost in a crash", model: "G2", rules: "G2", history: history(
			acquired(0, 2, a), status(5, 6, noHold))},
		{name: "lost in a crash, and granted to another process", model: "G1", rules: "G1", history: history(
			acquired(0, 2, a), acquired(5, 11, b))},
		{name: "another holder is shown than the current one", model: "G1", rules: "G2", history: history(
			acquired(0, 2, a), denied("c", 5, 6, hold("b", 20, 4, 0)),
			acquired(3, 7, hold("b", 20, 4, 0)).unknown())},
		{name: "a holder that has not requested the lock", model: "G9", rules: "G9", history: history(
			status(5, 6, a))},
		{name: "a holder that was refused", model: "G9", rules: "G9", history: history(
			denied("a", 0, 1, noHold), status(5, 6, hold("a", 10, 4, 0)))},
		{name: "a holder that the overloaded server refused", model: "G9", rules: "G9", history: history(
			acquired(0, 1, a).failed(), status(5, 6, a))},

		{name: "a lower token", model: "G3", rules: "G3", history: history(
			acquired(0, 2, hold("a", 30, 1, 0)), released(3, 4, 3, hold("a", 30, 1, 0)), acquired(9, 11, b))},
		{name: "the same token", model: "G3", rules: "G3", history: history(
			acquired(0, 2, a), released(3, 4, 3, a), acquired(9, 11, hold("b", 10, 10, 0)))},
		{name: "a token above the integers of JavaScript", rules: "G3", history: history(
			acquired(0, 2, hold("a", 1<<53, 1, 0)))},

		{name: "a release was lost, and happened", history: history(
			acquired(0, 2, a), released(3, 4, 0, a).unknown(), acquired(5, 11, b))},
		{name: "a release was lost, and did not happen", history: history(
			acquired(0, 2, a), released(3, 4, 0, a).unknown(), status(8, 9, a), released(20, 21, 20, a))},
		{name: "a release was lost, and happened late", history: history(
			acquired(0, 2, a), released(3, 4, 0, a).unknown(), status(8, 9, a), status(11, 12, noHold))},
		{name: "a release was lost, and happened before it was called", model: "G2", rules: "G2", history: history(
			acquired(0, 2, a), status(3, 4, noHold), released(5, 6, 0, a).unknown())},
		{name: "a release failed, and happened", model: "G1", rules: "G1", history: history(
			acquired(0, 2, a), released(3, 4, 0, a).failed(), acquired(5, 11, b))},
		{name: "a balancer released twice", history: history(
			acquired(0, 2, a),
			notHeld(robust.Release, 3, 4, "a", 10, wire.CodeAlreadyReleased).through(robust.Balancer),
			acquired(5, 11, b))},
		{name: "a renewal was lost, and happened", history: history(
			acquired(0, 2, short), renewed(3, 4, 0, short, 30).unknown(),
			status(12, 13, hold("a", 10, 1, 33)), released(14, 15, 14, short))},
		{name: "a renewal was lost, and did not happen", history: history(
			acquired(0, 2, short), renewed(3, 4, 0, short, 30).unknown(), acquired(5, 11, b))},
		{name: "a renewal was lost, and shortened the hold", history: history(
			acquired(0, 2, a), renewed(3, 4, 0, a, 5).unknown(), acquired(5, 11, b))},

		{name: "a retry", history: history(
			acquired(0, 2, a).requestID("x"), acquired(3, 4, a).requestID("x"))},
		{name: "a retry after the first answer was lost", history: history(
			acquired(0, 2, a).requestID("x").unknown(), status(3, 4, a), acquired(5, 6, a).requestID("x"),
			released(7, 8, 7, a), acquired(9, 11, b))},
		{name: "a retry after the hold ended", history: history(
			acquired(0, 2, short).requestID("x"), acquired(5, 11, hold("a", 20, 10, 0)).requestID("x"))},
		{name: "a retry gets another hold", model: "G1", rules: "G5", history: history(
			acquired(0, 2, a).requestID("x"), acquired(5, 11, hold("a", 20, 10, 0)).requestID("x"))},
		{name: "a retry is refused", model: "G5", rules: "G5", history: history(
			acquired(0, 2, a).requestID("x"), denied("a", 3, 4, a).requestID("x"))},
		{name: "superseded, and no holder is shown", history: history(
			acquired(0, 2, a), superseded("b", 3, 4, noHold), status(5, 6, a))},
		{
			name: "superseded, and another holder is shown than the current one", model: "G9", rules: "G2",
			history: history(
				acquired(0, 2, a), superseded("b", 3, 4, b), status(5, 6, a)),
		},
		{name: "the same process without a request_id is refused", history: history(
			acquired(0, 2, a), denied("a", 3, 4, a))},
		{name: "released twice", model: "G5", rules: "G5", history: history(
			acquired(0, 2, a), released(3, 4, 3, a), released(5, 6, 5, a))},
		{name: "the second release is refused", history: history(
			acquired(0, 2, a), released(3, 4, 3, a),
			notHeld(robust.Release, 5, 6, "a", 10, wire.CodeAlreadyReleased))},
		{name: "a release is refused", model: "G2", rules: "G2", history: history(
			acquired(0, 2, a), notHeld(robust.Release, 3, 4, "a", 10, wire.CodeAlreadyReleased))},
		{name: "a released hold is shown again", model: "G5", rules: "G5", history: history(
			acquired(0, 2, a), released(3, 4, 3, a), status(5, 6, a))},
		{name: "a released hold is renewed", model: "G5", rules: "G5", history: history(
			acquired(0, 2, a), released(3, 4, 3, a), renewed(5, 6, 5, a, 30))},
		{name: "an expired hold is shown after the next one", model: "G1", rules: "G5", history: history(
			acquired(0, 2, short), acquired(3, 11, b), released(12, 13, 12, b), status(14, 15, short))},
		{name: "refused for another token of the process", history: history(
			acquired(0, 2, short), acquired(3, 11, hold("a", 20, 10, 0)),
			notHeld(robust.Renew, 12, 13, "a", 10, wire.CodeTokenMismatch))},
		{name: "refused for another token, although the process holds nothing", model: "G5", history: history(
			acquired(0, 2, a), released(3, 4, 3, a),
			notHeld(robust.Renew, 12, 13, "a", 20, wire.CodeTokenMismatch))},

		{name: "first come, first served", history: history(
			acquired(0, 2, a), acquired(3, 22, hold("b", 20, 20, 21)).queuedAt(4),
			acquired(5, 32, hold("c", 30, 30, 0)).queuedAt(6), released(19, 21, 20, a))},
		{name: "overtaken in the queue", rules: "G4", history: history(
			acquired(0, 2, a), acquired(3, 32, hold("b", 30, 30, 0)).queuedAt(4),
			acquired(5, 22, hold("c", 20, 20, 21)).queuedAt(6), released(19, 21, 20, a))},
		{name: "overtaken by a process that did not wait", rules: "G4", history: history(
			acquired(0, 2, a), acquired(3, 32, hold("b", 30, 30, 0)).queuedAt(4),
			acquired(18, 22, hold("c", 20, 20, 21)), released(17, 21, 19, a))},
		{name: "overtaken, as a read of the queue shows", rules: "G4", history: history(
			acquired(0, 2, a), acquired(3, 32, hold("b", 30, 30, 0)).queuedAt(9), queue(5, 6, "b"),
			acquired(7, 22, hold("c", 20, 20, 21)).queuedAt(8), released(19, 21, 20, a))},
		{name: "overtaken by a process that was queued at the same microsecond", history: history(
			acquired(0, 2, a), acquired(3, 32, hold("b", 30, 30, 0)).queuedAt(6),
			acquired(5, 22, hold("c", 20, 20, 21)).queuedAt(6), released(19, 21, 20, a))},
		{name: "overtaken while it was cut off", history: history(
			acquired(0, 2, a), acquired(3, 10, b).queuedAt(0).requestID("x").unknown(),
			acquired(25, 32, hold("b", 30, 30, 0)).queuedAt(4).requestID("x"),
			acquired(5, 22, hold("c", 20, 20, 21)).queuedAt(6), released(19, 21, 20, a))},
		{
			name:   "overtaken while its server was paused",
			faults: []robust.Fault{{Kind: "pause", Server: 0, From: ms(10), To: ms(20)}},
			history: history(
				acquired(0, 2, a), acquired(3, 32, hold("b", 30, 30, 0)).queuedAt(4),
				acquired(5, 22, hold("c", 20, 20, 21)).queuedAt(6).through(1), released(19, 21, 20, a)),
		},
		{
			name: "overtaken while another server was paused", rules: "G4",
			faults: []robust.Fault{{Kind: "pause", Server: 1, From: ms(10), To: ms(20)}},
			history: history(
				acquired(0, 2, a), acquired(3, 32, hold("b", 30, 30, 0)).queuedAt(4),
				acquired(5, 22, hold("c", 20, 20, 21)).queuedAt(6).through(1), released(19, 21, 20, a)),
		},
		{name: "overtaken while its server gave no answers", history: history(
			acquired(0, 2, a), acquired(3, 3032, hold("b", 30, 3030, 0)).queuedAt(4),
			acquired(5, 2022, hold("c", 20, 2020, 2021)).queuedAt(6).through(1),
			released(2019, 2021, 2020, a).through(1))},

		{name: "disconnected, and its grant was undone", history: history(
			acquired(0, 2, a), acquired(3, 10, b).queuedAt(4).disconnected(), released(9, 11, 10, a),
			status(11, 12, b), status(13, 14, noHold))},
		{name: "disconnected while it was granted the lock", history: history(
			acquired(0, 2, a), released(3, 4, 3, a),
			acquired(3, 10, hold("b", 20, 9, 0)).queuedAt(4).disconnected(),
			status(4000, 4001, hold("b", 20, 9, 0)))},
		{name: "disconnected, and stays the holder", rules: "G7", history: history(
			acquired(0, 2, hold("a", 10, 1, 900)), acquired(3, 10, b).queuedAt(4).disconnected(),
			renewed(500, 501, 500, hold("a", 10, 1, 900), 800), status(4000, 4001, hold("b", 20, 800, 0)))},
		{
			name:   "disconnected, and its server was killed",
			faults: []robust.Fault{{Kind: "kill", Server: 0, From: ms(8), To: ms(9)}},
			history: history(
				acquired(0, 2, hold("a", 10, 1, 900)), acquired(3, 10, b).queuedAt(4).disconnected(),
				renewed(500, 501, 500, hold("a", 10, 1, 900), 800), status(4000, 4001, hold("b", 20, 800, 0))),
		},
		{name: "an acquire was lost, and not granted", history: history(
			acquired(0, 2, a).unknown(), acquired(5, 11, b))},
		{name: "an acquire was lost, and released by its process", history: history(
			acquired(0, 2, a).unknown(), status(3, 4, a), released(5, 6, 5, withoutToken(a)),
			acquired(9, 11, b))},
		{name: "an acquire was lost, and the process holds with another token", history: history(
			acquired(0, 2, short), acquired(11, 12, hold("a", 20, 11, 13)).unknown(),
			notHeld(robust.Release, 12, 13, "a", 10, wire.CodeTokenMismatch))},
	}
}

// TestCheckers has each checker accept legal histories and name the guarantee that
// another history breaks, if the checker judges that guarantee.
func TestCheckers(t *testing.T) {
	for _, test := range checkerCases() {
		t.Run(test.name, func(t *testing.T) {
			wantFound(t, "the model", test.model, robust.CheckModel(test.history, time.Minute))
			wantFound(t, "the invariants", test.rules, robust.CheckInvariants(test.history, test.faults))
		})
	}
}

func wantFound(t *testing.T, checker, guarantee string, violations []robust.Violation) {
	t.Helper()
	named := slices.ContainsFunc(violations, func(v robust.Violation) bool { return v.Guarantee == guarantee })
	if guarantee == "" && len(violations) > 0 || guarantee != "" && !named {
		t.Errorf("%s must find %q: %v", checker, guarantee, violations)
	}
}
