package service

import "resource-lock-manager/internal/lock"

// request is what a caller asks for: a command or a read.
type request interface {
	// Validate returns every fault of the request.
	Validate(lock.Limits) []lock.Fault
}

// gate is the one point that every command and every read of a caller passes. Nothing
// else gives them access to the store, so no method can skip its checks. It checks a
// request against the limits. A caller's permissions are to be checked here, too.
type gate struct {
	store  Store
	limits lock.Limits
}

// admit returns the store if the request may be executed. Otherwise it returns
// *lock.InvalidError. It is generic so that the request need not be copied to the heap.
func admit[R request](g gate, r R) (Store, error) {
	if faults := r.Validate(g.limits); len(faults) > 0 {
		return nil, &lock.InvalidError{Faults: faults}
	}
	return g.store, nil
}
