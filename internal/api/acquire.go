package api

import (
	"errors"
	"net/http"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/wire"
)

// acquire grants a lock. Its 413, 415, 422, 500 and 503 stand for those of all
// operations: package openapigen copies them.
//
//	@Summary		Acquire a lock
//	@Description	Grants the lock if the resource is free. `fencing_token` grows with every hold of the resource: let
//	@Description	the system that you protect refuse a token lower than the highest that it has seen. With a `request_id`
//	@Description	the call is idempotent: after a lost response, the same id and process get the hold that they already
//	@Description	have, not 409. With `wait_seconds` the call blocks until the resource is granted, first come first
//	@Description	served, or until that time has passed. If the client disconnects, the request loses its place in the
//	@Description	queue. With a `request_id` the place is kept for a short time, so that the client can retry.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.AcquireRequest	true	"the resource, the process and the time"
//	@Success		200		{object}	wire.Success[wire.Acquired]
//	@Failure		409		{object}	wire.Conflict			"the resource is held, or another request waits for it"
//	@Failure		413		{object}	wire.Failure			"the body is larger than 64 KiB"
//	@Failure		415		{object}	wire.Failure			"the body is not declared as JSON in UTF-8, or is compressed"
//	@Failure		422		{object}	wire.ValidationFailure	"the request is invalid; `detail` lists every fault"
//	@Failure		500		{object}	wire.Failure			"an internal error of the server"
//	@Failure		503		{object}	wire.Failure			"retry after Retry-After seconds"
//	@Router			/locks/request [post]
func (a *API) acquire(w http.ResponseWriter, r *http.Request) error {
	request, err := fromBody(a, w, r, func(o *object) lock.Request {
		request := lock.Request{
			Resource:  o.text("resource_name"),
			ProcessID: o.text("process_id"),
			TTL:       o.seconds("ttl_seconds"),
			RequestID: o.requestID("request_id"),
			Reason:    o.optionalText("reason"),
			Metadata:  o.json("metadata"),
		}
		request.MinHold, _ = o.duration("min_hold_seconds")
		request.Wait, _ = o.duration("wait_seconds")
		return request
	})
	if err != nil {
		return err
	}
	if request.Wait > 0 { // the bound for slow readers starts when there is something to read
		if err := extendDeadline(w, request.Wait+writeTimeout); err != nil {
			return err
		}
	}
	grant, err := a.locks.Acquire(r.Context(), request)
	switch {
	case errors.Is(err, service.ErrClientGone): // no answer to a request that waited would be true
		noteClientGone(w)
		panic(http.ErrAbortHandler)
	case err != nil:
		return err
	}
	hold := grant.Hold
	data := wire.Acquired{
		LockID:       grant.ID,
		ResourceName: request.Resource,
		ProcessID:    request.ProcessID,
		Times:        timesOf(hold, grant.Now),
		FencingToken: hold.Token,
		Repeated:     grant.Repeated,
	}
	if !hold.QueuedAt.IsZero() {
		data.WaitedSeconds = seconds(hold.LockedAt.Sub(hold.QueuedAt))
	}
	succeed(w, "Lock acquired successfully for resource '"+request.Resource+"'", data)
	if (request.Wait > 0 || r.Context().Err() != nil) && !delivered(w, r) {
		a.locks.Abandon(grant)
		noteClientGone(w)
	}
	return nil
}
