package api

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// renew extends a lock.
//
//	@Summary		Renew a lock
//	@Description	Sets the expiry of the process's own lock anew, counted from now; with a `ttl_seconds` of null the lock
//	@Description	never expires from now on. It never creates, revives or steals a lock: 404 says that the lock is lost. `code`
//	@Description	says how, as for a release: `expired`, `force_released`, `already_released`, `token_mismatch`, `not_held`.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.RenewRequest	true	"which lock, for how long from now"
//	@Success		200		{object}	wire.Success[wire.Renewed]
//	@Failure		404		{object}	wire.Failure			"the process does not hold the resource: stop the work"
//	@Failure		413		{object}	wire.Failure			"the body is larger than 64 KiB"
//	@Failure		415		{object}	wire.Failure			"the body is not declared as JSON in UTF-8, or is compressed"
//	@Failure		422		{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500		{object}	wire.Failure			"a fault of the server"
//	@Failure		503		{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/renew [post]
func (a *API) renew(w http.ResponseWriter, r *http.Request) error {
	var command lock.Renew
	err := decode(w, r, func(o *object) {
		command = lock.Renew{
			Resource:  o.text("resource_name"),
			ProcessID: o.text("process_id"),
			TTL:       o.secondsOrNever("ttl_seconds"),
			Token:     o.token("fencing_token"),
		}
	}, func() error { return a.locks.CheckRenew(command) })
	if err != nil {
		return err
	}
	out, err := a.locks.Renew(context.Background(), command)
	if err != nil {
		return err
	}
	succeed(w, "Lock renewed successfully for resource '"+command.Resource+"'", wire.Renewed{
		ResourceName: command.Resource,
		ProcessID:    command.ProcessID,
		Times:        timesOf(out.Hold, out.Now),
		FencingToken: out.Hold.Token,
		Renewals:     out.Hold.Renewals,
	})
	return nil
}

// renewAll is one heartbeat for all locks of a process.
//
//	@Summary		Renew all locks of a process
//	@Description	One heartbeat for every lock that the process holds, or with `holds` for those alone, each by its own
//	@Description	token. Locks that never expire are left alone: they are counted in `without_expiry`. Of the listed holds, the
//	@Description	answer names those that are `lost`: stop the work that they protect. 500 locks are renewed at a time: after
//	@Description	a 503 some may have been renewed, and the call can be repeated.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.RenewAllRequest	true	"whose locks, for how long from now"
//	@Success		200		{object}	wire.Success[wire.RenewedAll]
//	@Failure		413		{object}	wire.Failure			"the body is larger than 64 KiB"
//	@Failure		415		{object}	wire.Failure			"the body is not declared as JSON in UTF-8, or is compressed"
//	@Failure		422		{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500		{object}	wire.Failure			"a fault of the server"
//	@Failure		503		{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/renew-all [post]
func (a *API) renewAll(w http.ResponseWriter, r *http.Request) error {
	var process string
	var ttl time.Duration
	var holds []lock.Owned
	err := decode(w, r, func(o *object) {
		process, ttl, holds = o.text("process_id"), o.requiredSeconds("ttl_seconds"), o.owned("holds")
	}, func() error { return a.locks.CheckRenewAll(process, ttl, holds) })
	if err != nil {
		return err
	}
	done, err := a.locks.RenewAll(context.Background(), process, ttl, holds)
	if err != nil {
		return err
	}
	succeed(w, fmt.Sprintf("Renewed %s of process '%s'", counted(done.Renewed, "lock"), process), wire.RenewedAll{
		ProcessID: process, Renewed: done.Renewed, WithoutExpiry: done.Endless, Lost: ownedOf(done.Lost),
	})
	return nil
}

// releaseAll ends all locks of a process.
//
//	@Summary		Release all locks of a process
//	@Description	Ends every lock that the process holds, and answers how many that were. 500 locks are released at a time:
//	@Description	after a 503 some may have been released, and the call can be repeated.
//	@Tags			locks
//	@Produce		json
//	@Param			process_id	query		string	true	"ID of the process that owns the locks"	minlength(1)	maxlength(255)
//	@Success		200			{object}	wire.Success[wire.ReleasedAll]
//	@Failure		422			{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500			{object}	wire.Failure			"a fault of the server"
//	@Failure		503			{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/release-all [delete]
func (a *API) releaseAll(w http.ResponseWriter, r *http.Request) error {
	var process string
	err := query(r, func(p *parameters) { process = p.required("process_id") }, func() error {
		return a.locks.CheckReleaseAll(process, nil)
	})
	if err != nil {
		return err
	}
	return a.releaseHolds(w, process, nil)
}

// postReleaseAll is releaseAll with a body, which may list some holds.
//
//	@Summary		Release all locks of a process, or some
//	@Description	The same as `DELETE`, or with `holds` for those alone, each by its own token. Of the listed holds, the
//	@Description	answer names those that were `lost` before. When the call is repeated, `lost` also names the holds that the
//	@Description	first one released.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.ReleaseAllRequest	true	"whose locks"
//	@Success		200		{object}	wire.Success[wire.ReleasedAll]
//	@Failure		413		{object}	wire.Failure			"the body is larger than 64 KiB"
//	@Failure		415		{object}	wire.Failure			"the body is not declared as JSON in UTF-8, or is compressed"
//	@Failure		422		{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500		{object}	wire.Failure			"a fault of the server"
//	@Failure		503		{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/release-all [post]
func (a *API) postReleaseAll(w http.ResponseWriter, r *http.Request) error {
	var process string
	var holds []lock.Owned
	err := decode(w, r, func(o *object) { process, holds = o.text("process_id"), o.owned("holds") }, func() error {
		return a.locks.CheckReleaseAll(process, holds)
	})
	if err != nil {
		return err
	}
	return a.releaseHolds(w, process, holds)
}

// releaseHolds ends the listed holds of a process; with nil all of them.
func (a *API) releaseHolds(w http.ResponseWriter, process string, holds []lock.Owned) error {
	released, lost, err := a.locks.ReleaseAll(context.Background(), process, holds)
	if err != nil {
		return err
	}
	succeed(w, fmt.Sprintf("Released %s of process '%s'", counted(released, "lock"), process), wire.ReleasedAll{
		ProcessID: process, Released: released, Lost: ownedOf(lost),
	})
	return nil
}

// ownedOf names holds, in a list that is never null.
func ownedOf(holds []lock.Owned) []wire.Owned {
	named := make([]wire.Owned, len(holds))
	for i, o := range holds {
		named[i] = wire.Owned{ResourceName: o.Resource, FencingToken: o.Token}
	}
	return named
}

// counted is a number of things in words.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}
