package api

import (
	"context"
	"fmt"
	"net/http"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// defaultPage is the maximum number of entries of a page if the client states none.
const defaultPage = 100

// queue lists the waiters of a resource.
//
//	@Summary		List the waiters of a resource
//	@Description	Lists the requests that wait for the resource, in the order in which it will be granted to them. Send
//	@Description	`next_cursor` to get the next page, until it is null.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	true	"the name of the resource"	minlength(1)	maxlength(255)
//	@Param			limit			query		integer	false	"the maximum number of waiters in the response; 100 if absent"	minimum(1)	maximum(1000)
//	@Param			cursor			query		string	false	"the next_cursor of the previous page"
//	@Success		200				{object}	wire.Success[wire.Queue]
//	@Router			/locks/queue [get]
func (a *API) queue(w http.ResponseWriter, r *http.Request) error {
	var limit int
	var after int64
	resource, err := fromQuery(a, r, func(p *parameters) lock.ResourceName {
		name := p.text("resource_name")
		limit, after = p.limit("limit"), p.cursor("cursor")
		return lock.ResourceName(name)
	})
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = defaultPage
	}
	// one more shows whether there is a next page
	page, err := a.locks.Queue(context.Background(), resource, after, limit+1)
	if err != nil {
		return err
	}
	data, waiters := wire.Queue{ResourceName: string(resource)}, page.Waiters
	if len(waiters) > limit {
		waiters = waiters[:limit]
		data.NextCursor = cursorOf(waiters[limit-1].Ticket)
	}
	data.Waiters = make([]wire.Waiter, len(waiters))
	for i, waiter := range waiters {
		data.Waiters[i] = wire.Waiter{
			Position:      page.Position + i,
			ProcessID:     waiter.Request.ProcessID,
			WaitingSince:  wire.Time(waiter.Since),
			WaitedSeconds: seconds(max(page.At.Sub(waiter.Since), 0)),
			Reason:        optional(waiter.Request.Reason),
		}
		if waiter.Request.Metadata != "" {
			data.Waiters[i].Metadata = []byte(waiter.Request.Metadata)
		}
	}
	succeed(w, fmt.Sprintf("Retrieved %s of resource '%s'", counted(len(waiters), "waiter"), resource), data)
	return nil
}
