package store

import "resource-lock-manager/internal/lock"

// lockColumns are the columns of resource_locks. docs/CONTRIBUTING.md says how to add
// one.
var lockColumns = []column[lockRow]{
	{
		name: "id", kind: bigint, absent: "0", fixed: true, field: func(r *lockRow) any { return &r.ID },
		initial: "nextval(pg_get_serial_sequence('resource_locks', 'id'))",
	},
	{
		name: "resource_name", kind: varchar, absent: "''", fixed: true,
		field: func(r *lockRow) any { return &r.ResourceName },
	},
	{name: "process_id", kind: varchar, absent: "''", field: func(r *lockRow) any { return &r.ProcessID }},
	{name: "locked_at", kind: timestamp, field: func(r *lockRow) any { return &r.LockedAt }},
	{name: "expires_at", kind: timestamp, field: func(r *lockRow) any { return &r.ExpiresAt }},
	{name: "is_active", kind: boolean, absent: "false", field: func(r *lockRow) any { return &r.IsActive }},
	{name: "ended_at", kind: timestamp, field: func(r *lockRow) any { return &r.EndedAt }},
	{name: "fencing_token", kind: bigint, absent: "0", field: func(r *lockRow) any { return &r.FencingToken }},
	{name: "request_id", kind: varchar, field: func(r *lockRow) any { return &r.RequestID }},
	{name: "reason", kind: varchar, field: func(r *lockRow) any { return &r.Reason }},
	{name: "metadata", kind: varchar, field: func(r *lockRow) any { return &r.Metadata }},
	{name: "renewed_at", kind: timestamp, field: func(r *lockRow) any { return &r.RenewedAt }},
	{name: "renewals", kind: bigint, absent: "0", field: func(r *lockRow) any { return &r.Renewals }},
	{name: "min_hold_until", kind: timestamp, field: func(r *lockRow) any { return &r.MinHoldUntil }},
	{name: "released_at", kind: timestamp, field: func(r *lockRow) any { return &r.ReleasedAt }},
	{name: "waiters", kind: bigint, absent: "0", field: func(r *lockRow) any { return &r.Waiters }},
	{name: "away", kind: bigint, absent: "0", field: func(r *lockRow) any { return &r.Detached }},
	{name: "last_ticket", kind: bigint, absent: "0", field: func(r *lockRow) any { return &r.LastTicket }},
	{name: "queued_at", kind: timestamp, field: func(r *lockRow) any { return &r.QueuedAt }},
	{name: "connection", kind: bigint, absent: "0", field: func(r *lockRow) any { return &r.Connection }},
}

// lockList is what a query of resources selects.
var lockList = namesOfColumns(lockColumns)

// lockRow is a row of resource_locks: the latest hold of a resource, current or ended.
// Empty fields are left out of its JSON, because Postgres takes as long to read an empty
// one as any other.
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

// scan reads the given targets and then the columns.
func (row *lockRow) scan(rows scanner, before ...any) error {
	return rows.Scan(targetsOf(lockColumns, row, before...)...)
}

// values returns what the columns are set to. A row without an id gets one.
func (row *lockRow) values() []any {
	values := valuesOf(lockColumns, row)
	if row.ID == 0 {
		values[0] = nil
	}
	return values
}

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

// rowOf returns the row of a resource. It panics if the resource has several holds, for
// which a row has no place.
func rowOf(r lock.Resource) lockRow {
	hold := r.Last
	switch len(r.Holds) {
	case 0:
	case 1:
		hold = r.Holds[0]
	default:
		panic("a resource with several holds: " + r.Name)
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
