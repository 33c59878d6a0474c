package store

import (
	"database/sql/driver"
	"fmt"
	"time"

	"resource-lock-manager/internal/lock"
)

// columns of resource_locks in the order in which lockRow scans them.
const columns = `id, resource_name, process_id, locked_at, expires_at, is_active, ended_at, fencing_token,
	request_id, reason, metadata, renewed_at, renewals, min_hold_until, released_at,
	waiters, away, last_ticket, queued_at, connection`

// optionalColumns are the same where there may be no row: id is 0 then.
const optionalColumns = `coalesce(id, 0), coalesce(resource_name, ''), coalesce(process_id, ''), locked_at, expires_at,
	coalesce(is_active, false), ended_at, coalesce(fencing_token, 0),
	request_id, reason, metadata, renewed_at, coalesce(renewals, 0), min_hold_until, released_at,
	coalesce(waiters, 0), coalesce(away, 0), coalesce(last_ticket, 0), queued_at, coalesce(connection, 0)`

// lockRow is a row of resource_locks: the latest hold of a resource, which IsActive says is still one. Its JSON is what
// Postgres reads: what is empty is left out, because it costs as much to read as what is not.
type lockRow struct {
	ID           int64   `json:"id,omitempty"`
	ResourceName string  `json:"resource_name"`
	ProcessID    string  `json:"process_id"`
	LockedAt     instant `json:"locked_at"`
	ExpiresAt    instant `json:"expires_at,omitzero"`
	IsActive     bool    `json:"is_active,omitempty"`
	EndedAt      instant `json:"ended_at,omitzero"`
	FencingToken int64   `json:"fencing_token"`
	RequestID    text    `json:"request_id,omitempty"`
	Reason       text    `json:"reason,omitempty"`
	Metadata     text    `json:"metadata,omitempty"`
	RenewedAt    instant `json:"renewed_at,omitzero"`
	Renewals     int     `json:"renewals,omitempty"`
	MinHoldUntil instant `json:"min_hold_until,omitzero"`
	ReleasedAt   instant `json:"released_at,omitzero"`
	Waiters      int     `json:"waiters,omitempty"`
	Detached     int     `json:"away,omitempty"`
	LastTicket   int64   `json:"last_ticket,omitempty"`
	QueuedAt     instant `json:"queued_at,omitzero"`
	Connection   int64   `json:"connection,omitempty"`
}

// scan reads columns, behind other ones.
func (row *lockRow) scan(rows scanner, before ...any) error {
	return rows.Scan(append(before,
		&row.ID, &row.ResourceName, &row.ProcessID, &row.LockedAt, &row.ExpiresAt, &row.IsActive, &row.EndedAt, &row.FencingToken,
		&row.RequestID, &row.Reason, &row.Metadata, &row.RenewedAt, &row.Renewals, &row.MinHoldUntil, &row.ReleasedAt,
		&row.Waiters, &row.Detached, &row.LastTicket, &row.QueuedAt, &row.Connection)...)
}

// values are what columns are set to. A row without an id gets one.
func (row *lockRow) values() []any {
	var id any
	if row.ID != 0 {
		id = row.ID
	}
	return []any{
		id, row.ResourceName, row.ProcessID, row.LockedAt.value(), row.ExpiresAt.value(), row.IsActive, row.EndedAt.value(), row.FencingToken,
		row.RequestID.value(), row.Reason.value(), row.Metadata.value(), row.RenewedAt.value(), row.Renewals, row.MinHoldUntil.value(),
		row.ReleasedAt.value(), row.Waiters, row.Detached, row.LastTicket, row.QueuedAt.value(), row.Connection,
	}
}

type scanner interface{ Scan(targets ...any) error }

func (row *lockRow) resource() lock.Resource {
	r := lock.Resource{
		ID: row.ID, Name: row.ResourceName, Token: row.FencingToken,
		Waiters: row.Waiters, Detached: row.Detached, LastTicket: row.LastTicket,
	}
	hold := lock.Hold{
		ProcessID:    row.ProcessID,
		Token:        row.FencingToken,
		LockedAt:     row.LockedAt.Time,
		ExpiresAt:    row.ExpiresAt.Time,
		RequestID:    string(row.RequestID),
		Reason:       string(row.Reason),
		Metadata:     string(row.Metadata),
		RenewedAt:    row.RenewedAt.Time,
		Renewals:     row.Renewals,
		MinHoldUntil: row.MinHoldUntil.Time,
		ReleasedAt:   row.ReleasedAt.Time,
		QueuedAt:     row.QueuedAt.Time,
		Connection:   row.Connection,
	}
	if row.IsActive {
		r.Holds = []lock.Hold{hold}
	} else {
		r.Last, r.EndedAt = hold, row.EndedAt.Time
	}
	return r
}

func rowOf(r lock.Resource) lockRow {
	hold := r.Last
	if len(r.Holds) > 0 {
		hold = r.Holds[0]
	}
	return lockRow{
		ID:           r.ID,
		ResourceName: r.Name,
		ProcessID:    hold.ProcessID,
		LockedAt:     instant{hold.LockedAt},
		ExpiresAt:    instant{hold.ExpiresAt},
		IsActive:     len(r.Holds) > 0,
		EndedAt:      instant{r.EndedAt},
		FencingToken: r.Token,
		RequestID:    text(hold.RequestID),
		Reason:       text(hold.Reason),
		Metadata:     text(hold.Metadata),
		RenewedAt:    instant{hold.RenewedAt},
		Renewals:     hold.Renewals,
		MinHoldUntil: instant{hold.MinHoldUntil},
		ReleasedAt:   instant{hold.ReleasedAt},
		Waiters:      r.Waiters,
		Detached:     r.Detached,
		LastTicket:   r.LastTicket,
		QueuedAt:     instant{hold.QueuedAt},
		Connection:   hold.Connection,
	}
}

// waiterColumns of lock_waiters, called w, and the life of its server, called s, in the order in which waiterRow scans them.
const waiterColumns = `w.resource_id, w.ticket, w.server_id, w.connection, w.process_id, w.request_id, w.waiting_since, w.away_until,
	w.ttl_us, w.min_hold_us, w.reason, w.metadata, s.alive_until`

// waiterRow is a row of lock_waiters. Its JSON is what the save statements read.
type waiterRow struct {
	ResourceID    int64   `json:"resource_id"`
	Ticket        int64   `json:"ticket"`
	ServerID      int64   `json:"server_id"`
	Connection    int64   `json:"connection"`
	ProcessID     string  `json:"process_id"`
	RequestID     string  `json:"request_id"`
	WaitingSince  instant `json:"waiting_since"`
	DetachedUntil instant `json:"away_until,omitzero"`
	TTL           int64   `json:"ttl_us"`
	MinHold       int64   `json:"min_hold_us"`
	Reason        text    `json:"reason,omitempty"`
	Metadata      text    `json:"metadata,omitempty"`
	AliveUntil    instant `json:"-"`
}

// scan reads waiterColumns, behind other ones.
func (row *waiterRow) scan(rows scanner, before ...any) error {
	return rows.Scan(append(before,
		&row.ResourceID, &row.Ticket, &row.ServerID, &row.Connection, &row.ProcessID, &row.RequestID, &row.WaitingSince, &row.DetachedUntil,
		&row.TTL, &row.MinHold, &row.Reason, &row.Metadata, &row.AliveUntil)...)
}

// values are what the columns of lock_waiters are set to.
func (row *waiterRow) values() []any {
	return []any{
		row.ResourceID, row.Ticket, row.ServerID, row.Connection, row.ProcessID, row.RequestID, row.WaitingSince.value(), row.DetachedUntil.value(),
		row.TTL, row.MinHold, row.Reason.value(), row.Metadata.value(),
	}
}

// waiter returns what the row tells to the given server.
func (row *waiterRow) waiter(resource string, server int64) *lock.Waiter {
	return &lock.Waiter{
		Ticket: row.Ticket,
		Request: lock.Request{
			Resource: resource, ProcessID: row.ProcessID, RequestID: row.RequestID,
			TTL: time.Duration(row.TTL) * time.Microsecond, MinHold: time.Duration(row.MinHold) * time.Microsecond,
			Reason: string(row.Reason), Metadata: string(row.Metadata),
		},
		Connection:    row.Connection,
		Since:         row.WaitingSince.Time,
		Local:         row.ServerID == server && row.DetachedUntil.IsZero(),
		AliveUntil:    row.AliveUntil.Time,
		DetachedUntil: row.DetachedUntil.Time,
	}
}

// waiterRowOf is for a waiter that this server has put into the queue of a resource, or away.
func waiterRowOf(resourceID, server int64, w *lock.Waiter) waiterRow {
	return waiterRow{
		ResourceID: resourceID, Ticket: w.Ticket, ServerID: server, Connection: w.Connection,
		ProcessID: w.Request.ProcessID, RequestID: w.Request.RequestID,
		WaitingSince: instant{w.Since}, DetachedUntil: instant{w.DetachedUntil},
		TTL: w.Request.TTL.Microseconds(), MinHold: w.Request.MinHold.Microseconds(),
		Reason: text(w.Request.Reason), Metadata: text(w.Request.Metadata),
	}
}

// eventColumns of lock_events in the order in which eventRow scans them, behind the id.
const eventColumns = `kind, at, resource_name, process_id, fencing_token, locked_at, renewals, reason, ended_by, hold_reason`

// eventRow is a row of lock_events. The column locked_at tells when what the event is about had begun: a hold, or waiting.
type eventRow struct {
	ID           int64          `json:"-"`
	Kind         lock.EventKind `json:"kind"`
	At           instant        `json:"at"`
	ResourceName string         `json:"resource_name"`
	ProcessID    string         `json:"process_id"`
	FencingToken int64          `json:"fencing_token"`
	LockedAt     instant        `json:"locked_at"`
	Renewals     int            `json:"renewals,omitempty"`
	Reason       text           `json:"reason,omitempty"`
	EndedBy      text           `json:"ended_by,omitempty"`
	HoldReason   text           `json:"hold_reason,omitempty"`
}

func (row *eventRow) scan(rows scanner) error {
	return rows.Scan(&row.ID, &row.Kind, &row.At, &row.ResourceName, &row.ProcessID, &row.FencingToken, &row.LockedAt,
		&row.Renewals, &row.Reason, &row.EndedBy, &row.HoldReason)
}

// values are what eventColumns are set to.
func (row *eventRow) values() []any {
	return []any{
		string(row.Kind), row.At.value(), row.ResourceName, row.ProcessID, row.FencingToken, row.LockedAt.value(), row.Renewals,
		row.Reason.value(), row.EndedBy.value(), row.HoldReason.value(),
	}
}

func (row *eventRow) event() lock.Event {
	return lock.Event{
		ID: row.ID, Kind: row.Kind, At: row.At.Time, Resource: row.ResourceName, ProcessID: row.ProcessID, Token: row.FencingToken,
		Since: row.LockedAt.Time, Renewals: row.Renewals, Reason: string(row.Reason), By: string(row.EndedBy),
		HoldReason: string(row.HoldReason),
	}
}

func eventRowOf(e lock.Event) eventRow {
	return eventRow{
		Kind: e.Kind, At: instant{e.At}, ResourceName: e.Resource, ProcessID: e.ProcessID, FencingToken: e.Token,
		LockedAt: instant{e.Since}, Renewals: e.Renewals, Reason: text(e.Reason), EndedBy: text(e.By),
		HoldReason: text(e.HoldReason),
	}
}

// text is NULL when it is empty.
type text string

func (t *text) Scan(value any) error {
	switch v := value.(type) {
	case nil:
		*t = ""
	case string:
		*t = text(v)
	default:
		return fmt.Errorf("a text of type %T", value)
	}
	return nil
}

// value is what SQLite is given.
func (t text) value() any {
	if t == "" {
		return nil
	}
	return string(t)
}

// instant is a UTC moment in microseconds; the zero time is NULL. SQLite keeps it as text of one width, which compares
// as text; Postgres as timestamptz.
type instant struct{ time.Time }

const instantLayout = "2006-01-02 15:04:05.000000"

func (i *instant) Scan(value any) error {
	var err error
	switch v := value.(type) {
	case nil:
		i.Time = time.Time{}
	case time.Time:
		i.Time = v.UTC()
	case string:
		i.Time, err = time.ParseInLocation(instantLayout, v, time.UTC)
	default:
		err = fmt.Errorf("a timestamp of type %T", value)
	}
	return err
}

// Value writes the text form. Postgres reads it in UTC, the time zone of our sessions.
func (i instant) Value() (driver.Value, error) { return i.value(), nil }

// value is what SQLite is given.
func (i instant) value() any {
	if i.IsZero() {
		return nil
	}
	return i.UTC().Format(instantLayout)
}

func (i instant) MarshalJSON() ([]byte, error) {
	return []byte(`"` + i.UTC().Format(instantLayout) + `"`), nil
}
