package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// renew extends a lock.
//
//	@Summary		Renew a lock
//	@Description	Sets the expiry of the process's own lock anew, counted from now. It never creates, revives or steals a
//	@Description	lock: 404 says that the lock is lost, and `code` tells more.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.RenewRequest	true	"which lock, for how long from now"
//	@Success		200		{object}	wire.Success[wire.Renewed]
//	@Failure		404		{object}	wire.Failure			"the process does not hold the resource: stop the work"
//	@Failure		413		{object}	wire.Failure			"the body is larger than 64 KiB"
//	@Failure		415		{object}	wire.Failure			"the body is not declared as application/json"
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
			TTL:       o.seconds("ttl_seconds"),
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
//	@Description	One heartbeat for every lock that the process holds. Of the `holds` that the request lists, the answer
//	@Description	names those that are `lost`: stop the work that they protect.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.RenewAllRequest	true	"whose locks, for how long from now"
//	@Success		200		{object}	wire.Success[wire.RenewedAll]
//	@Failure		413		{object}	wire.Failure			"the body is larger than 64 KiB"
//	@Failure		415		{object}	wire.Failure			"the body is not declared as application/json"
//	@Failure		422		{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500		{object}	wire.Failure			"a fault of the server"
//	@Failure		503		{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/renew-all [post]
func (a *API) renewAll(w http.ResponseWriter, r *http.Request) error {
	var process string
	var ttl time.Duration
	var holds []lock.Owned
	err := decode(w, r, func(o *object) {
		process, ttl, holds = o.text("process_id"), o.seconds("ttl_seconds"), o.owned("holds")
	}, func() error { return a.locks.CheckRenewAll(process, ttl, holds) })
	if err != nil {
		return err
	}
	renewed, lost, err := a.locks.RenewAll(context.Background(), process, ttl, holds)
	if err != nil {
		return err
	}
	data := wire.RenewedAll{ProcessID: process, Renewed: renewed, Lost: make([]wire.Owned, len(lost))}
	for i, o := range lost {
		data.Lost[i] = wire.Owned{ResourceName: o.Resource, FencingToken: o.Token}
	}
	succeed(w, fmt.Sprintf("Renewed %d locks of process '%s'", renewed, process), data)
	return nil
}

// releaseAll ends all locks of a process.
//
//	@Summary		Release all locks of a process
//	@Description	Ends every lock that the process holds, and answers how many that were.
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
	if err := query(r, func(p *parameters) { process = p.required("process_id") }, func() error {
		return a.locks.CheckName("process_id", process)
	}); err != nil {
		return err
	}
	released, err := a.locks.ReleaseAll(context.Background(), process)
	if err != nil {
		return err
	}
	succeed(w, fmt.Sprintf("Released %d locks of process '%s'", released, process), wire.ReleasedAll{ProcessID: process, Released: released})
	return nil
}
