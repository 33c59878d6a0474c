package api

import (
	"context"
	"fmt"
	"net/http"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// status reports who holds a resource.
//
//	@Summary		Check a lock's status
//	@Description	Reports whether the resource is locked now, by which process, why, since when and until when.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	true	"the name of the resource"	minlength(1)	maxlength(255)
//	@Success		200				{object}	wire.Success[wire.Status]
//	@Router			/locks/status [get]
func (a *API) status(w http.ResponseWriter, r *http.Request) error {
	resource, err := fromQuery(a, r, func(p *parameters) lock.ResourceName {
		return lock.ResourceName(p.text("resource_name"))
	})
	if err != nil {
		return err
	}
	snapshot, err := a.locks.Status(context.Background(), resource)
	if err != nil {
		return err
	}
	name, waiters := string(resource), snapshot.Resource.Waiters
	hold, held := snapshot.Resource.Holder(snapshot.At)
	if !held {
		succeed(w, "Resource '"+name+"' is not locked", wire.Status{ResourceName: name, Waiters: waiters})
		return nil
	}
	h := holdOf(hold, snapshot.At)
	succeed(w, "Resource '"+name+"' status retrieved successfully", wire.Status{
		ResourceName:     name,
		IsLocked:         true,
		LockedBy:         &h.ProcessID,
		LockedAt:         &h.LockedAt,
		ExpiresAt:        h.ExpiresAt,
		ExpiresInSeconds: h.ExpiresInSeconds,
		FencingToken:     &h.FencingToken,
		Waiters:          waiters,
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
//	@Description	Reports whether the token is that of the current hold. Use this only if the protected system cannot check
//	@Description	the token itself. A check at the point of the write is stronger, because a hold may end right after this
//	@Description	response.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	true	"the name of the resource"	minlength(1)	maxlength(255)
//	@Param			fencing_token	query		integer	true	"the token to check"
//	@Success		200				{object}	wire.Success[wire.Validity]
//	@Router			/locks/validate [get]
func (a *API) validate(w http.ResponseWriter, r *http.Request) error {
	var token int64
	resource, err := fromQuery(a, r, func(p *parameters) lock.ResourceName {
		name := p.text("resource_name")
		token = p.requiredToken("fencing_token")
		return lock.ResourceName(name)
	})
	if err != nil {
		return err
	}
	snapshot, err := a.locks.Status(context.Background(), resource)
	if err != nil {
		return err
	}
	data := wire.Validity{ResourceName: string(resource), FencingToken: token}
	message := "Fencing token is not valid for resource '%s'"
	if hold, owned := snapshot.Owner(); owned {
		data.CurrentFencingToken = &hold.Token
		data.ExpiresInSeconds = secondsUntil(hold.ExpiresAt, snapshot.At)
		if data.Valid = hold.Token == token; data.Valid {
			message = "Fencing token is valid for resource '%s'"
		}
	}
	succeed(w, fmt.Sprintf(message, resource), data)
	return nil
}
