package api

import (
	"context"
	"fmt"
	"net/http"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/wire"
)

// renew extends a lock.
//
//	@Summary		Renew a lock
//	@Description	Sets a new expiry of the process's own lock, counted from now. With a `ttl_seconds` of null the lock never
//	@Description	expires from now on. A renewal never creates, revives or steals a lock: 404 means that the lock is lost.
//	@Description	`code` states why, as for a release: `expired`, `force_released`, `already_released`, `token_mismatch` or
//	@Description	`not_held`.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.RenewRequest	true	"the lock and its time to live, counted from now"
//	@Success		200		{object}	wire.Success[wire.Renewed]
//	@Failure		404		{object}	wire.Failure	"the process does not hold the resource: stop the work"
//	@Router			/locks/renew [post]
func (a *API) renew(w http.ResponseWriter, r *http.Request) error {
	command, err := fromBody(a, w, r, func(o *object) lock.Renew {
		return lock.Renew{
			Resource:  o.text("resource_name"),
			ProcessID: o.text("process_id"),
			TTL:       o.secondsOrNever("ttl_seconds"),
			Token:     o.token("fencing_token"),
		}
	})
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

// renewAll extends all locks of a process, or those that the body lists.
//
//	@Summary		Renew all or some locks of a process
//	@Description	One heartbeat for every lock that the process holds, or with `holds` only for the listed ones, each by its
//	@Description	token. Locks that never expire are left alone and counted in `without_expiry`. The response names those
//	@Description	listed holds that are `lost`: stop the work that they protect. At most 500 locks are renewed in one
//	@Description	transaction: after a 503 some may have been renewed, and the call can be repeated.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.RenewAllRequest	true	"the locks and their time to live, counted from now"
//	@Success		200		{object}	wire.Success[wire.RenewedAll]
//	@Router			/locks/renew-all [post]
func (a *API) renewAll(w http.ResponseWriter, r *http.Request) error {
	command, err := fromBody(a, w, r, func(o *object) service.RenewAll {
		return service.RenewAll{
			ProcessID: o.text("process_id"),
			TTL:       o.requiredSeconds("ttl_seconds"),
			Holds:     o.holds("holds"),
		}
	})
	if err != nil {
		return err
	}
	done, err := a.locks.RenewAll(context.Background(), command)
	if err != nil {
		return err
	}
	message := fmt.Sprintf("Renewed %s of process '%s'", counted(done.Renewed, "lock"), command.ProcessID)
	succeed(w, message, wire.RenewedAll{
		ProcessID: command.ProcessID, Renewed: done.Renewed, WithoutExpiry: done.Endless, Lost: holdRefsOf(done.Lost),
	})
	return nil
}
