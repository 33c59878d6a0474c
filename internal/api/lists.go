package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// allLocked lists locked resources.
//
//	@Summary		List all locked resources
//	@Description	Lists the locks that are held at this moment; without parameters all of them. They are ordered by id, or
//	@Description	with a `prefix` by name, code point by code point. With a `limit` the answer has a `next_cursor`: pass it on,
//	@Description	with the same `prefix`, to get the next page, until it is null. Pages are stable while locks come and go.
//	@Tags			locks
//	@Produce		json
//	@Param			prefix		query		string	false	"only resources whose name begins so; case counts, no character is special"	maxlength(255)
//	@Param			process_id	query		string	false	"only locks of this process"	maxlength(255)
//	@Param			limit		query		integer	false	"the maximum number of locks in the answer; all if absent"	minimum(1)	maximum(1000)
//	@Param			cursor		query		string	false	"the next_cursor of the page before"
//	@Success		200			{object}	wire.Success[wire.AllLocked]
//	@Failure		422			{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500			{object}	wire.Failure			"a fault of the server"
//	@Failure		503			{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/all-locked [get]
func (a *API) allLocked(w http.ResponseWriter, r *http.Request) error {
	var f lock.ListFilter
	err := query(r, func(p *parameters) {
		f.Prefix, _ = p.optional("prefix")
		f.ProcessID, _ = p.optional("process_id")
		f.Limit = p.limit("limit")
		if f.Prefix == "" {
			f.AfterID = p.cursor("cursor")
		} else {
			f.After = p.nameCursor("cursor")
		}
	}, func() error { return a.locks.CheckList(f) })
	if err != nil {
		return err
	}
	list := listWriter{limit: f.Limit, cursorOf: func(r lock.Resource) *string { return cursorOf(r.ID) }}
	if f.Prefix != "" {
		list.cursorOf = func(r lock.Resource) *string { return nameCursorOf(r.Name) }
	}
	if f.Limit > 0 {
		f.Limit++ // one more tells whether there is a next page
	} else {
		done, err := a.waitForSpool()
		if err != nil {
			return err
		}
		defer done()
	}
	defer list.out.Close()
	if err := a.locks.List(context.Background(), f, list.begin, list.each); err != nil {
		return err
	}
	if err := list.end(); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err := list.out.sendTo(w); err != nil {
		noteError(w, err)
		panic(http.ErrAbortHandler) // the client must not take what it has for the whole list
	}
	return nil
}

// listWriter writes the list of locks while it is read: the seed's envelope opened up, so that no list is ever in memory.
type listWriter struct {
	limit    int // 0: none
	cursorOf func(lock.Resource) *string
	out      spool
	item     []byte
	now      time.Time
	total    int // with a limit, one more than it when there is a next page
	count    int
	last     lock.Resource
}

func (l *listWriter) begin(total int, now time.Time) error {
	l.now, l.total = now, total
	if l.limit > 0 {
		total = min(total, l.limit)
	}
	_, err := fmt.Fprintf(&l.out, `{"success":true,"message":"Retrieved %d active locks","data":{"total_locks":%d,"locks":[`, total, total)
	return err
}

func (l *listWriter) each(r lock.Resource) error {
	if l.limit > 0 && l.count == l.limit {
		return nil
	}
	l.item = l.item[:0]
	if l.count++; l.count > 1 {
		l.item = append(l.item, ',')
	}
	l.last = r
	l.item = wire.Append(l.item, &wire.Lock{ID: r.ID, ResourceName: r.Name, Hold: holdOf(r.Holds[0], l.now)})
	_, err := l.out.Write(l.item)
	return err
}

func (l *listWriter) end() error {
	tail := "]}}\n"
	if l.limit > 0 {
		tail = "],\"next_cursor\":null}}\n"
		if l.total > l.limit {
			tail = fmt.Sprintf("],\"next_cursor\":%q}}\n", *l.cursorOf(l.last))
		}
	}
	if _, err := l.out.Write([]byte(tail)); err != nil {
		return err
	}
	return l.out.complete()
}

// defaultHistory is how many events a page of the history has when the client does not say.
const defaultHistory = 100

// history tells what happened.
//
//	@Summary		Read the history
//	@Description	Tells what happened to a resource, or what a process did, newest first: every acquire, release,
//	@Description	force-release and expiry, with how long the hold had lasted; and who was queued, was granted the resource
//	@Description	after waiting, or gave up. Renewals are counted, not listed. The end of a hold also tells why it had been
//	@Description	taken, in `hold_reason`. With `event`, `since` or `until`, newest first is by `at`, otherwise by `id`: these
//	@Description	differ in that an expiry is recorded up to a second after it came.
//	@Description	The `reason` of `gave_up` is a word that says why the waiting ended: `wait_timeout`, the request waited as
//	@Description	long as it had asked to; `client_gone`, nobody was there any more to be answered; `server_stopping`, the server
//	@Description	was stopped; `did_not_come_back`, the place was kept, and nobody repeated the request in time. A `released`
//	@Description	has one of the first three if the server ended the hold, else null. Other events have the reason that a
//	@Description	caller gave. More words may come.
//	@Tags			locks
//	@Produce		json
//	@Param			resource_name	query		string	false	"only events of this resource"		maxlength(255)
//	@Param			process_id		query		string	false	"only events of holds of this process"	maxlength(255)
//	@Param			event			query		string	false	"only these events, separated by commas: acquired, granted, released, force_released, expired, queued, gave_up"
//	@Param			since			query		string	false	"only events at this moment or later, in RFC 3339 with an offset"
//	@Param			until			query		string	false	"only events before this moment, in RFC 3339 with an offset"
//	@Param			limit			query		integer	false	"the maximum number of events in the answer; 100 if absent"	minimum(1)	maximum(1000)
//	@Param			cursor			query		string	false	"the next_cursor of the page before, with the same other parameters"
//	@Success		200				{object}	wire.Success[wire.History]
//	@Failure		422				{object}	wire.ValidationFailure	"the request is malformed; `detail` names each field"
//	@Failure		500				{object}	wire.Failure			"a fault of the server"
//	@Failure		503				{object}	wire.Failure			"try again after Retry-After seconds"
//	@Router			/locks/history [get]
func (a *API) history(w http.ResponseWriter, r *http.Request) error {
	var f lock.HistoryFilter
	err := query(r, func(p *parameters) {
		f.Resource, _ = p.optional("resource_name")
		f.ProcessID, _ = p.optional("process_id")
		f.Kinds = p.events("event")
		f.Since, f.Until = p.moment("since"), p.moment("until")
		f.Limit = p.limit("limit")
		f.BeforeID = p.cursor("cursor")
	}, func() error { return a.locks.CheckHistory(f) })
	if err != nil {
		return err
	}
	if f.Limit == 0 {
		f.Limit = defaultHistory
	}
	limit := f.Limit
	f.Limit++ // one more tells whether there is a next page
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
	for i, e := range events {
		data.Events[i] = wire.Event{
			ID: e.ID, Event: string(e.Kind), At: wire.Time(e.At), ResourceName: e.Resource, ProcessID: e.ProcessID,
			Reason: optional(e.Reason), By: optional(e.By), HoldReason: optional(e.HoldReason),
		}
		took := secondsUntil(e.At, e.Since)
		switch e.Kind {
		case lock.Granted, lock.GaveUp:
			data.Events[i].WaitedSeconds = took
		case lock.Released, lock.ForceReleased, lock.Expired:
			data.Events[i].HeldSeconds = took
			data.Events[i].Renewals = &e.Renewals
		}
		if e.Token != 0 {
			data.Events[i].FencingToken = &e.Token
		}
	}
	succeed(w, "Retrieved "+counted(len(events), "event"), data)
	return nil
}
