package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/wire"
)

// allLocked lists locked resources.
//
//	@Summary		List all locked resources
//	@Description	Lists the locks that are held now; without parameters all of them. They are ordered by id, or with a
//	@Description	`prefix` by name, code point by code point. With a `limit` the response has a `next_cursor`. Send it with
//	@Description	the same `prefix` to get the next page, until it is null. Pages stay consistent while locks are acquired
//	@Description	and released.
//	@Tags			locks
//	@Produce		json
//	@Param			prefix		query		string	false	"only resources whose name starts with this text; case-sensitive, without wildcards"	maxlength(255)
//	@Param			process_id	query		string	false	"only locks of this process"	maxlength(255)
//	@Param			limit		query		integer	false	"the maximum number of locks in the response; all if absent"	minimum(1)	maximum(1000)
//	@Param			cursor		query		string	false	"the next_cursor of the previous page"
//	@Success		200			{object}	wire.Success[wire.AllLocked]
//	@Router			/locks/all-locked [get]
func (a *API) allLocked(w http.ResponseWriter, r *http.Request) error {
	f, err := fromQuery(a, r, func(p *parameters) (f service.ListFilter) {
		f.Prefix = p.optionalText("prefix")
		f.ProcessID = p.optionalText("process_id")
		f.Limit = p.limit("limit")
		if f.Prefix == "" {
			f.AfterID = p.cursor("cursor")
		} else {
			f.After = p.nameCursor("cursor")
		}
		return f
	})
	if err != nil {
		return err
	}
	list := listWriter{limit: f.Limit, cursorOf: func(r lock.Resource) *string { return cursorOf(r.ID) }}
	if f.Prefix != "" {
		list.cursorOf = func(r lock.Resource) *string { return nameCursorOf(r.Name) }
	}
	if f.Limit > 0 {
		f.Limit++ // one more shows whether there is a next page
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
	header := w.Header()
	header["Content-Type"], header["Cache-Control"] = asJSON, noStore
	if err := list.out.sendTo(w); err != nil {
		noteError(w, err)
		panic(http.ErrAbortHandler) // the client must not take a part for the whole list
	}
	return nil
}

// listWriter writes the list of locks while it is read, so that the list is never in
// memory. It writes the envelope itself.
type listWriter struct {
	limit    int // 0: none
	cursorOf func(lock.Resource) *string
	out      spool
	item     []byte
	now      time.Time
	total    int // with a limit, one more than the limit if there is a next page
	count    int
	last     lock.Resource
}

func (l *listWriter) begin(total int, now time.Time) error {
	l.now, l.total = now, total
	if l.limit > 0 {
		total = min(total, l.limit)
	}
	_, err := fmt.Fprintf(&l.out,
		`{"success":true,"message":"Retrieved %d active locks","data":{"total_locks":%d,"locks":[`, total, total)
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
