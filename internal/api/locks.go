package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// acquire grants a lock.
//
//	@Summary		Acquire a lock
//	@Description	Grants the lock if nobody holds the resource. `fencing_token` grows with every hold of the resource: let
//	@Description	what you protect refuse a token lower than one it has seen. With a `request_id` the call can be repeated
//	@Description	after a lost answer: the same id and process get the hold that they have, not 409.
//	@Description	With `wait_seconds` the call blocks until it is its turn, first come first served, or until that time is
//	@Description	over. Hanging up gives the place up; with a `request_id` it is kept for a short while, so that the call
//	@Description	can be repeated when a proxy has cut it.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.AcquireRequest	true	"which resource, for whom, for how long"
//	@Success		200		{object}	wire.Success[wire.Acquired]
//	@Failure		409		{object}	wire.Conflict			"somebody holds the resource, or waits for it"
//	@Failure		413		{object}	wire.Failure			"the body is larger than 64 KiB"
//	@Failure		415		{object}	wire.Failure			"the body is not declared as JSON in UTF-8, or is compressed"
//	@Failure		422		{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500		{object}	wire.Failure			"a fault of the server"
//	@Failure		503		{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/request [post]
func (a *API) acquire(w http.ResponseWriter, r *http.Request) error {
	var command lock.Acquire
	err := decode(w, r, func(o *object) {
		command = lock.Acquire{
			Resource:  o.text("resource_name"),
			ProcessID: o.text("process_id"),
			TTL:       o.seconds("ttl_seconds"),
			RequestID: o.requestID("request_id"),
			Reason:    o.optionalText("reason"),
			Metadata:  o.json("metadata"),
		}
		command.MinHold, _ = o.duration("min_hold_seconds")
		command.Wait, _ = o.duration("wait_seconds")
	}, func() error { return a.locks.CheckAcquire(command) })
	if err != nil {
		return err
	}
	if command.Wait > 0 {
		if err := a.locks.CheckAcquire(command); err != nil {
			return err
		}
		// The bound for slow readers begins when there is something to read.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(command.Wait + writeTimeout)); err != nil {
			return err
		}
	}
	grant, err := a.locks.Acquire(r.Context(), command)
	switch {
	case errors.Is(err, lock.ErrClientGone): // it waited, and its client has gone: there is nothing true to answer
		noteClientGone(w)
		panic(http.ErrAbortHandler)
	case err != nil:
		return err
	}
	hold := grant.Hold
	data := wire.Acquired{
		LockID:       grant.ID,
		ResourceName: command.Resource,
		ProcessID:    command.ProcessID,
		Times:        timesOf(hold, grant.Now),
		FencingToken: hold.Token,
		Repeated:     grant.Repeated,
	}
	if !hold.QueuedAt.IsZero() {
		data.WaitedSeconds = seconds(hold.LockedAt.Sub(hold.QueuedAt))
	}
	succeed(w, "Lock acquired successfully for resource '"+command.Resource+"'", data)
	if (command.Wait > 0 || r.Context().Err() != nil) && !delivered(w, r) {
		a.locks.GiveBack(grant)
		noteClientGone(w)
	}
	return nil
}

// release ends a lock.
//
//	@Summary		Release a lock
//	@Description	Ends the lock that the process holds. When the lock has a minimum hold, the resource stays taken until
//	@Description	`free_at`. A repeated release changes nothing and answers 404 with the code `already_released`. The other
//	@Description	codes of a 404: `expired`, `force_released`; `token_mismatch` when the process holds the resource by another
//	@Description	token; `not_held` when it never held it, or longer ago than the history reaches.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	true	"name of the resource to release"			minlength(1)	maxlength(255)
//	@Param			process_id		query		string	true	"ID of the process that owns the lock"	minlength(1)	maxlength(255)
//	@Param			fencing_token	query		integer	false	"only if this is the token of the current hold"
//	@Success		200				{object}	wire.Success[wire.Released]
//	@Failure		404				{object}	wire.Failure			"the process does not hold the resource; `code` tells more"
//	@Failure		422				{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500				{object}	wire.Failure			"a fault of the server"
//	@Failure		503				{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/release [delete]
func (a *API) release(w http.ResponseWriter, r *http.Request) error {
	var command lock.Release
	err := eitherWay(w, r, func(s source) {
		command = lock.Release{
			Resource:  s.text("resource_name"),
			ProcessID: s.text("process_id"),
			Token:     s.token("fencing_token"),
		}
	}, func() error { return a.locks.CheckRelease(command) })
	if err != nil {
		return err
	}
	out, err := a.locks.Release(context.Background(), command)
	if err != nil {
		return err
	}
	data := wire.Released{ResourceName: command.Resource, ProcessID: command.ProcessID, ReleasedAt: wire.Time(out.Now)}
	if !out.Hold.ReleasedAt.IsZero() {
		data.FreeAt = wire.OptionalTime(out.Hold.MinHoldUntil)
	}
	succeed(w, "Lock released successfully for resource '"+command.Resource+"'", data)
	return nil
}

// postRelease is release with a body.
//
//	@Summary		Release a lock, with a JSON body
//	@Description	The same as `DELETE`, for names that would have to be percent-encoded in a query.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.ReleaseRequest	true	"which lock"
//	@Success		200		{object}	wire.Success[wire.Released]
//	@Failure		404		{object}	wire.Failure			"the process does not hold the resource; `code` tells more"
//	@Failure		413		{object}	wire.Failure			"the body is larger than 64 KiB"
//	@Failure		415		{object}	wire.Failure			"the body is not declared as JSON in UTF-8, or is compressed"
//	@Failure		422		{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500		{object}	wire.Failure			"a fault of the server"
//	@Failure		503		{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/release [post]
func (a *API) postRelease(w http.ResponseWriter, r *http.Request) error { return a.release(w, r) }

// status tells who holds a resource.
//
//	@Summary		Check a lock's status
//	@Description	Tells whether the resource is locked at this moment, by whom, why, since when and until when.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	true	"name of the resource to check"	minlength(1)	maxlength(255)
//	@Success		200				{object}	wire.Success[wire.Status]
//	@Failure		422				{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500				{object}	wire.Failure			"a fault of the server"
//	@Failure		503				{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/status [get]
func (a *API) status(w http.ResponseWriter, r *http.Request) error {
	var name string
	if err := query(r, func(p *parameters) { name = p.required("resource_name") }, func() error {
		return a.locks.CheckName("resource_name", name)
	}); err != nil {
		return err
	}
	resource, now, err := a.locks.Status(context.Background(), name)
	if err != nil {
		return err
	}
	hold, held := resource.Holder(now)
	if !held {
		succeed(w, "Resource '"+name+"' is not locked", wire.Status{ResourceName: name, Waiters: resource.Waiters})
		return nil
	}
	h := holdOf(hold, now)
	succeed(w, "Resource '"+name+"' status retrieved successfully", wire.Status{
		ResourceName:     name,
		IsLocked:         true,
		LockedBy:         &h.ProcessID,
		LockedAt:         &h.LockedAt,
		ExpiresAt:        h.ExpiresAt,
		ExpiresInSeconds: h.ExpiresInSeconds,
		FencingToken:     &h.FencingToken,
		Waiters:          resource.Waiters,
		Reason:           h.Reason,
		Metadata:         h.Metadata,
		Renewals:         &hold.Renewals,
		MinHoldUntil:     wire.OptionalTime(hold.MinHoldUntil),
		ReleasedAt:       wire.OptionalTime(hold.ReleasedAt),
	})
	return nil
}

// validate checks a fencing token.
//
//	@Summary		Check a fencing token
//	@Description	Tells whether the token is still that of the current hold. Ask this before work that cannot check the
//	@Description	token itself; what can had better check it where it writes, because a hold may end right after this answer.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	true	"name of the resource"	minlength(1)	maxlength(255)
//	@Param			fencing_token	query		integer	true	"the token to check"
//	@Success		200				{object}	wire.Success[wire.Validity]
//	@Failure		422				{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500				{object}	wire.Failure			"a fault of the server"
//	@Failure		503				{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/validate [get]
func (a *API) validate(w http.ResponseWriter, r *http.Request) error {
	data := wire.Validity{}
	err := query(r, func(p *parameters) {
		data.ResourceName = p.required("resource_name")
		data.FencingToken = p.requiredToken("fencing_token")
	}, func() error { return a.locks.CheckName("resource_name", data.ResourceName) })
	if err != nil {
		return err
	}
	hold, current, now, err := a.locks.Current(context.Background(), data.ResourceName)
	if err != nil {
		return err
	}
	message := "Fencing token is not valid for resource '%s'"
	if current {
		data.CurrentFencingToken = &hold.Token
		data.ExpiresInSeconds = secondsUntil(hold.ExpiresAt, now)
		if data.Valid = hold.Token == data.FencingToken; data.Valid {
			message = "Fencing token is valid for resource '%s'"
		}
	}
	succeed(w, fmt.Sprintf(message, data.ResourceName), data)
	return nil
}

// forceRelease breaks a lock.
//
//	@Summary		Force-release a lock
//	@Description	Ends whatever hold the resource has, whoever has it, its minimum hold notwithstanding; with a
//	@Description	`fencing_token` that very hold or nothing. It is recorded with the reason and who asked; the former holder's
//	@Description	next renewal tells it. The codes of a 404: `not_locked`, and `token_mismatch` when another hold is there.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	true	"name of the resource to free"			minlength(1)	maxlength(255)
//	@Param			reason			query		string	true	"why"									minlength(1)	maxlength(500)
//	@Param			process_id		query		string	false	"who asks; the caller's address if absent"	maxlength(255)
//	@Param			fencing_token	query		integer	false	"only if this is the token of the current hold"
//	@Success		200				{object}	wire.Success[wire.ForceReleased]
//	@Failure		404				{object}	wire.Failure			"nobody holds the resource, or another hold is there"
//	@Failure		422				{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500				{object}	wire.Failure			"a fault of the server"
//	@Failure		503				{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/force-release [delete]
func (a *API) forceRelease(w http.ResponseWriter, r *http.Request) error {
	var command lock.ForceRelease
	err := eitherWay(w, r, func(s source) {
		command = lock.ForceRelease{
			Resource: s.text("resource_name"),
			Reason:   s.text("reason"),
			By:       s.optionalText("process_id"),
			Token:    s.token("fencing_token"),
		}
	}, func() error { return a.locks.CheckForceRelease(command) })
	if err != nil {
		return err
	}
	if command.By == "" {
		command.By = callerAddress(r)
	}
	out, err := a.locks.ForceRelease(context.Background(), command)
	if err != nil {
		return err
	}
	succeed(w, fmt.Sprintf("Lock force-released for resource '%s'", command.Resource), wire.ForceReleased{
		ResourceName: command.Resource,
		ReleasedAt:   wire.Time(out.Now),
		Reason:       command.Reason,
		By:           command.By,
		Holder:       holdOf(out.Hold, out.Now),
	})
	return nil
}

// postForceRelease is forceRelease with a body.
//
//	@Summary		Force-release a lock, with a JSON body
//	@Description	The same as `DELETE`, for names that would have to be percent-encoded in a query.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			request	body		wire.ForceReleaseRequest	true	"which lock, and why"
//	@Success		200		{object}	wire.Success[wire.ForceReleased]
//	@Failure		404		{object}	wire.Failure			"nobody holds the resource, or another hold is there"
//	@Failure		413		{object}	wire.Failure			"the body is larger than 64 KiB"
//	@Failure		415		{object}	wire.Failure			"the body is not declared as JSON in UTF-8, or is compressed"
//	@Failure		422		{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500		{object}	wire.Failure			"a fault of the server"
//	@Failure		503		{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/force-release [post]
func (a *API) postForceRelease(w http.ResponseWriter, r *http.Request) error {
	return a.forceRelease(w, r)
}

// holdOf tells of a hold as it is at a moment.
func holdOf(h lock.Hold, now time.Time) wire.Hold {
	hold := wire.Hold{ProcessID: h.ProcessID, Times: timesOf(h, now), FencingToken: h.Token, Reason: optional(h.Reason)}
	if h.Metadata != "" {
		hold.Metadata = []byte(h.Metadata)
	}
	return hold
}

func timesOf(h lock.Hold, now time.Time) wire.Times {
	return wire.Times{
		LockedAt:         wire.Time(h.LockedAt),
		ExpiresAt:        wire.OptionalTime(h.ExpiresAt),
		ExpiresInSeconds: secondsUntil(h.ExpiresAt, now),
	}
}

// secondsUntil is nil for a moment that never comes.
func secondsUntil(t, now time.Time) *float64 {
	if t.IsZero() {
		return nil
	}
	left := seconds(max(t.Sub(now), 0))
	return &left
}

// seconds are whole microseconds: one division gives the float that is written with the fewest digits, Duration.Seconds
// adds two.
func seconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1e6
}

// optional is nil for the empty text.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}
