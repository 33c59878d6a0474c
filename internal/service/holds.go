package service

import (
	"context"
	"iter"
	"slices"
	"time"

	"resource-lock-manager/internal/lock"
)

// maxHolds is the maximum number of holds that one transaction renews or releases, so
// that no other command waits long behind it.
const maxHolds = 500

// RenewAll asks to renew every hold of a process, or the listed ones unless Holds is nil.
type RenewAll struct {
	ProcessID string
	TTL       time.Duration
	Holds     []lock.HoldRef
}

// Validate returns every fault of the request.
func (r RenewAll) Validate(limits lock.Limits) []lock.Fault {
	var f lock.Faults
	f.Name("process_id", r.ProcessID)
	if r.TTL == 0 {
		f.Add("ttl_seconds", lock.Required, nil)
	} else {
		f.TTL(r.TTL, limits)
	}
	f.Holds(r.Holds)
	return f
}

// Renewed is what RenewAll did.
type Renewed struct {
	Renewed int
	Endless int            // the number of holds that were left alone because they never expire
	Lost    []lock.HoldRef // the listed holds that the process does not have, in the order of the list
}

// RenewAll renews many holds. An error may come after some of them were renewed. The call
// can be repeated.
func (s *Service) RenewAll(ctx context.Context, r RenewAll) (done Renewed, err error) {
	store, err := admit(s.gate, r)
	if err != nil {
		return done, err
	}
	only := onlyOf(r.Holds)
	kept := map[lock.HoldRef]bool{}
	err = forHolds(ctx, store, r.ProcessID, r.Holds, func(names []string) lock.Command {
		return lock.RenewAll{Names: names, ProcessID: r.ProcessID, TTL: r.TTL, Only: only}
	}, func(out lock.Outcome) {
		done.Renewed += len(out.Holds)
		done.Endless += len(out.Endless)
		for _, ref := range slices.Concat(out.Holds, out.Endless) {
			kept[ref] = true
		}
	})
	done.Lost = without(r.Holds, kept)
	return done, err
}

// ReleaseAll asks to release every hold of a process, or the listed ones unless Holds is
// nil.
type ReleaseAll struct {
	ProcessID string
	Holds     []lock.HoldRef
}

// Validate returns every fault of the request.
func (r ReleaseAll) Validate(lock.Limits) []lock.Fault {
	var f lock.Faults
	f.Name("process_id", r.ProcessID)
	f.Holds(r.Holds)
	return f
}

// Released is what ReleaseAll did.
type Released struct {
	Released int
	Lost     []lock.HoldRef // the listed holds that the process does not have, in the order of the list
}

// ReleaseAll ends many holds. An error may come after some of them were released. The
// call can be repeated.
func (s *Service) ReleaseAll(ctx context.Context, r ReleaseAll) (done Released, err error) {
	store, err := admit(s.gate, r)
	if err != nil {
		return done, err
	}
	only := onlyOf(r.Holds)
	ended := map[lock.HoldRef]bool{}
	err = forHolds(ctx, store, r.ProcessID, r.Holds, func(names []string) lock.Command {
		return lock.ReleaseAll{Names: names, ProcessID: r.ProcessID, Only: only}
	}, func(out lock.Outcome) {
		done.Released += len(out.Holds)
		for _, ref := range out.Holds {
			ended[ref] = true
		}
	})
	done.Lost = without(r.Holds, ended)
	return done, err
}

// onlyOf returns the set of the listed holds.
func onlyOf(listed []lock.HoldRef) lock.Only {
	if listed == nil {
		return nil
	}
	only := make(lock.Only, len(listed))
	for _, ref := range listed {
		only[ref] = true
	}
	return only
}

// without returns the listed holds that are not in the set.
func without(listed []lock.HoldRef, set map[lock.HoldRef]bool) []lock.HoldRef {
	return slices.DeleteFunc(slices.Clone(listed), func(ref lock.HoldRef) bool { return set[ref] })
}

// forHolds executes commands on the resources of the listed holds, or with a nil list on
// all resources that a process holds, some at a time. It calls take with each outcome.
func forHolds(
	ctx context.Context, store Store, process string, listed []lock.HoldRef,
	command func(names []string) lock.Command, take func(lock.Outcome),
) error {
	for names, err := range chunks(ctx, store, process, listed) {
		if err != nil {
			return err
		}
		out, err := store.Execute(ctx, command(names))
		if err != nil {
			return err
		}
		take(out)
	}
	return nil
}

// chunks yields up to maxHolds names of resources at a time, in their order, and ends
// after an error.
func chunks(ctx context.Context, store Reader, process string, listed []lock.HoldRef) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		if listed != nil {
			var names []string
			for _, ref := range listed {
				names = append(names, ref.Resource)
			}
			slices.Sort(names)
			for chunk := range slices.Chunk(slices.Compact(names), maxHolds) {
				if !yield(chunk, nil) {
					return
				}
			}
			return
		}
		for after := ""; ; {
			names, err := store.HeldBy(ctx, process, after, maxHolds)
			if err == nil && len(names) == 0 || !yield(names, err) || len(names) < maxHolds {
				return
			}
			after = names[len(names)-1]
		}
	}
}
