package store

import "resource-lock-manager/internal/lock"

// eventColumns are the columns of lock_events, except its id, which the database chooses.
var eventColumns = []column[eventRow]{
	{name: "kind", kind: varchar, field: func(r *eventRow) any { return &r.Kind }},
	{name: "at", kind: timestamp, field: func(r *eventRow) any { return &r.At }},
	{name: "resource_name", kind: varchar, field: func(r *eventRow) any { return &r.ResourceName }},
	{name: "process_id", kind: varchar, field: func(r *eventRow) any { return &r.ProcessID }},
	{name: "fencing_token", kind: bigint, field: func(r *eventRow) any { return &r.FencingToken }},
	{name: "locked_at", kind: timestamp, field: func(r *eventRow) any { return &r.Since }},
	{name: "renewals", kind: bigint, absent: "0", field: func(r *eventRow) any { return &r.Renewals }},
	{name: "reason", kind: varchar, field: func(r *eventRow) any { return &r.Reason }},
	{name: "ended_by", kind: varchar, field: func(r *eventRow) any { return &r.EndedBy }},
	{name: "hold_reason", kind: varchar, field: func(r *eventRow) any { return &r.HoldReason }},
}

// eventList is what a query of events selects.
var eventList = "id, " + namesOfColumns(eventColumns)

// eventRow is a row of lock_events.
type eventRow struct {
	ID           int64          `json:"-"`
	Kind         lock.EventKind `json:"kind"`
	At           instant        `json:"at"`
	ResourceName string         `json:"resource_name"`
	ProcessID    string         `json:"process_id"`
	FencingToken int64          `json:"fencing_token"`
	Since        instant        `json:"locked_at"` // when the hold or the wait began
	Renewals     int            `json:"renewals,omitempty"`
	Reason       text           `json:"reason,omitempty"`
	EndedBy      text           `json:"ended_by,omitempty"`
	HoldReason   text           `json:"hold_reason,omitempty"`
}

// scan reads eventList.
func (row *eventRow) scan(rows scanner) error {
	return rows.Scan(targetsOf(eventColumns, row, &row.ID)...)
}

// values returns what the columns are set to.
func (row *eventRow) values() []any { return valuesOf(eventColumns, row) }

func (row *eventRow) event() lock.Event {
	return lock.Event{
		ID: row.ID, Kind: row.Kind, At: row.At.Time, Resource: row.ResourceName, ProcessID: row.ProcessID,
		Token: row.FencingToken, Since: row.Since.Time, Renewals: row.Renewals, Reason: string(row.Reason),
		By: string(row.EndedBy), HoldReason: string(row.HoldReason),
	}
}

func eventRowOf(e lock.Event) eventRow {
	return eventRow{
		Kind: e.Kind, At: instant{e.At}, ResourceName: e.Resource, ProcessID: e.ProcessID, FencingToken: e.Token,
		Since: instant{e.Since}, Renewals: e.Renewals, Reason: text(e.Reason), EndedBy: text(e.By),
		HoldReason: text(e.HoldReason),
	}
}
