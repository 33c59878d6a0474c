package api

import (
	"context"
	"net/http"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/wire"
)

// history lists past events.
//
//	@Summary		Read the history
//	@Description	Lists what happened to a resource, or what a process did, newest first: every acquire, release,
//	@Description	force-release and expiry, with the duration of the hold; and which requests were queued, were granted the
//	@Description	resource after waiting, or gave up. Renewals are counted, not listed. The end of a hold also states, in
//	@Description	`hold_reason`, the reason that was given for the hold. With `event`, `since` or `until` the events are
//	@Description	ordered by `at`, otherwise by `id`. The two orders differ only for expiries, which are recorded up to a
//	@Description	second after they happened.
//	@Description	The `reason` of `gave_up` states why the wait ended. `wait_timeout`: the request waited for its
//	@Description	`wait_seconds`. `client_gone`: the client disconnected. `server_stopping`: the server was stopped.
//	@Description	`did_not_come_back`: the place was kept, and the client did not retry in time. The `reason` of `released` is
//	@Description	one of the first three if the server ended the hold, otherwise null. The `reason` of other events is that of
//	@Description	the caller. More such words may be added.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	false	"only events of this resource"						maxlength(255)
//	@Param			process_id		query		string	false	"only events of the holds and waits of this process"	maxlength(255)
//	@Param			event			query		string	false	"only these events, separated by commas: acquired, granted, released, force_released, expired, queued, gave_up"
//	@Param			since			query		string	false	"only events at this time or later, in RFC 3339 with an offset"
//	@Param			until			query		string	false	"only events before this time, in RFC 3339 with an offset"
//	@Param			limit			query		integer	false	"the maximum number of events in the response; 100 if absent"	minimum(1)	maximum(1000)
//	@Param			cursor			query		string	false	"the next_cursor of the previous page, with the same other parameters"
//	@Success		200				{object}	wire.Success[wire.History]
//	@Router			/locks/history [get]
func (a *API) history(w http.ResponseWriter, r *http.Request) error {
	f, err := fromQuery(a, r, func(p *parameters) (f service.HistoryFilter) {
		f.Resource = p.optionalText("resource_name")
		f.ProcessID = p.optionalText("process_id")
		f.Kinds = p.events("event")
		f.Since, f.Until = p.timestamp("since"), p.timestamp("until")
		f.Limit = p.limit("limit")
		f.BeforeID = p.cursor("cursor")
		return f
	})
	if err != nil {
		return err
	}
	if f.Limit == 0 {
		f.Limit = defaultPage
	}
	limit := f.Limit
	f.Limit++ // one more shows whether there is a next page
	events, err := a.locks.History(context.Background(), f)
	if err != nil {
		return err
	}
	var data wire.History
	if len(events) > limit {
		events = events[:limit]
		data.NextCursor = cursorOf(events[limit-1].ID)
	}
	data.Events = make([]wire.Event, len(events))
	for i := range events {
		data.Events[i] = eventOf(&events[i])
	}
	succeed(w, "Retrieved "+counted(len(events), "event"), data)
	return nil
}

func eventOf(e *lock.Event) wire.Event {
	event := wire.Event{
		ID: e.ID, Event: string(e.Kind), At: wire.Time(e.At), ResourceName: e.Resource, ProcessID: e.ProcessID,
		Reason: optional(e.Reason), By: optional(e.By), HoldReason: optional(e.HoldReason),
	}
	switch e.Kind {
	case lock.EventGranted, lock.EventGaveUp:
		event.WaitedSeconds = secondsUntil(e.At, e.Since)
	case lock.EventReleased, lock.EventForceReleased, lock.EventExpired:
		event.HeldSeconds, event.Renewals = secondsUntil(e.At, e.Since), &e.Renewals
	}
	if e.Token != 0 {
		event.FencingToken = &e.Token
	}
	return event
}
