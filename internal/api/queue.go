package api

import (
	"context"
	"fmt"
	"net/http"

	"resource-lock-manager/internal/wire"
)

// defaultQueue is how many waiters a page of a queue has when the client does not say.
const defaultQueue = 100

// queue tells who waits for a resource.
//
//	@Summary		See who waits
//	@Description	Lists the requests that wait for the resource, in the order in which they will get it. Pass `next_cursor`
//	@Description	on to get the next page, until it is null.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	true	"name of the resource"	minlength(1)	maxlength(255)
//	@Param			limit			query		integer	false	"the maximum number of waiters in the answer; 100 if absent"	minimum(1)	maximum(1000)
//	@Param			cursor			query		string	false	"the next_cursor of the page before"
//	@Success		200				{object}	wire.Success[wire.Queue]
//	@Failure		422				{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500				{object}	wire.Failure			"a fault of the server"
//	@Failure		503				{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/queue [get]
func (a *API) queue(w http.ResponseWriter, r *http.Request) error {
	var name string
	var limit int
	var after int64
	err := query(r, func(p *parameters) {
		name, limit, after = p.required("resource_name"), p.limit("limit"), p.cursor("cursor")
	}, func() error { return a.locks.CheckName("resource_name", name) })
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = defaultQueue
	}
	waiters, position, now, err := a.locks.Queue(context.Background(), name, after, limit+1) // one more tells whether there is a next page
	if err != nil {
		return err
	}
	data := wire.Queue{ResourceName: name}
	if len(waiters) > limit {
		waiters = waiters[:limit]
		data.NextCursor = cursorOf(waiters[limit-1].Ticket)
	}
	data.Waiters = make([]wire.Waiter, len(waiters))
	for i, waiter := range waiters {
		data.Waiters[i] = wire.Waiter{
			Position:      position + i,
			ProcessID:     waiter.Request.ProcessID,
			WaitingSince:  wire.Time(waiter.Since),
			WaitedSeconds: seconds(max(now.Sub(waiter.Since), 0)),
			Reason:        optional(waiter.Request.Reason),
		}
		if waiter.Request.Metadata != "" {
			data.Waiters[i].Metadata = []byte(waiter.Request.Metadata)
		}
	}
	succeed(w, fmt.Sprintf("Retrieved %s of resource '%s'", counted(len(waiters), "waiter"), name), data)
	return nil
}
