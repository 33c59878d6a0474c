package store

import (
	"time"

	"resource-lock-manager/internal/lock"
)

// waiterColumns are the columns of lock_waiters.
var waiterColumns = []column[waiterRow]{
	{name: "resource_id", kind: bigint, fixed: true, field: func(r *waiterRow) any { return &r.ResourceID }},
	{name: "ticket", kind: bigint, fixed: true, field: func(r *waiterRow) any { return &r.Ticket }},
	{name: "server_id", kind: bigint, field: func(r *waiterRow) any { return &r.ServerID }},
	{name: "connection", kind: bigint, field: func(r *waiterRow) any { return &r.Connection }},
	{name: "process_id", kind: varchar, fixed: true, field: func(r *waiterRow) any { return &r.ProcessID }},
	{name: "request_id", kind: varchar, fixed: true, field: func(r *waiterRow) any { return &r.RequestID }},
	{name: "waiting_since", kind: timestamp, fixed: true, field: func(r *waiterRow) any { return &r.WaitingSince }},
	{name: "away_until", kind: timestamp, field: func(r *waiterRow) any { return &r.DetachedUntil }},
	{name: "ttl_us", kind: bigint, field: func(r *waiterRow) any { return &r.TTL }},
	{name: "min_hold_us", kind: bigint, field: func(r *waiterRow) any { return &r.MinHold }},
	{name: "reason", kind: varchar, field: func(r *waiterRow) any { return &r.Reason }},
	{name: "metadata", kind: varchar, field: func(r *waiterRow) any { return &r.Metadata }},
}

// waiterRow is a row of lock_waiters, read together with the lease of its server.
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

	AliveUntil instant `json:"-"` // of the server
}

// scan reads the given targets, then the columns, then the server's alive_until.
func (row *waiterRow) scan(rows scanner, before ...any) error {
	return rows.Scan(append(targetsOf(waiterColumns, row, before...), &row.AliveUntil)...)
}

// values returns what the columns are set to.
func (row *waiterRow) values() []any { return valuesOf(waiterColumns, row) }

// waiter returns the waiter as the given server sees it.
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

// waiterRowOf returns the row of a waiter that the given server has enqueued or detached.
func waiterRowOf(resourceID, server int64, w *lock.Waiter) waiterRow {
	return waiterRow{
		ResourceID: resourceID, Ticket: w.Ticket, ServerID: server, Connection: w.Connection,
		ProcessID: w.Request.ProcessID, RequestID: w.Request.RequestID,
		WaitingSince: instant{w.Since}, DetachedUntil: instant{w.DetachedUntil},
		TTL: w.Request.TTL.Microseconds(), MinHold: w.Request.MinHold.Microseconds(),
		Reason: text(w.Request.Reason), Metadata: text(w.Request.Metadata),
	}
}
