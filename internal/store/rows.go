package store

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"time"

	"resource-lock-manager/internal/lock"
)

// columns of resource_locks in the order in which lockRow scans them.
const columns = `id, resource_name, process_id, locked_at, expires_at, is_active, ended_at, fencing_token`

// lockRow is a row of resource_locks: the latest hold of a resource, which IsActive says is still one.
type lockRow struct {
	ID           sql.Null[int64] `json:"id"`
	ResourceName string          `json:"resource_name"`
	ProcessID    string          `json:"process_id"`
	LockedAt     instant         `json:"locked_at"`
	ExpiresAt    instant         `json:"expires_at"`
	IsActive     bool            `json:"is_active"`
	EndedAt      instant         `json:"ended_at"`
	FencingToken int64           `json:"fencing_token"`
}

// scanOptional reads a moment and a row whose columns may all be NULL.
func scanOptional(rows *sql.Rows) (now instant, row lockRow, found bool, err error) {
	var name, process sql.NullString
	var active sql.NullBool
	var token sql.NullInt64
	err = rows.Scan(&now, &row.ID, &name, &process, &row.LockedAt, &row.ExpiresAt, &active, &row.EndedAt, &token)
	row.ResourceName, row.ProcessID, row.IsActive, row.FencingToken = name.String, process.String, active.Bool, token.Int64
	return now, row, row.ID.Valid, err
}

func (row lockRow) resource() lock.Resource {
	r := lock.Resource{ID: row.ID.V, Name: row.ResourceName, Token: row.FencingToken}
	hold := lock.Hold{
		ProcessID: row.ProcessID,
		Token:     row.FencingToken,
		LockedAt:  row.LockedAt.Time,
		ExpiresAt: row.ExpiresAt.Time,
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
		ID:           sql.Null[int64]{V: r.ID, Valid: r.ID != 0},
		ResourceName: r.Name,
		ProcessID:    hold.ProcessID,
		LockedAt:     instant{hold.LockedAt},
		ExpiresAt:    instant{hold.ExpiresAt},
		IsActive:     len(r.Holds) > 0,
		EndedAt:      instant{r.EndedAt},
		FencingToken: r.Token,
	}
}

// MarshalJSON writes the row as the save statements read it.
func (row lockRow) MarshalJSON() ([]byte, error) {
	type plain lockRow // without this method
	var id any
	if row.ID.Valid {
		id = row.ID.V
	}
	return json.Marshal(struct {
		ID any `json:"id"`
		plain
	}{id, plain(row)})
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
func (i instant) Value() (driver.Value, error) {
	if i.IsZero() {
		return nil, nil
	}
	return i.UTC().Format(instantLayout), nil
}

func (i instant) MarshalJSON() ([]byte, error) {
	if i.IsZero() {
		return []byte("null"), nil
	}
	return []byte(`"` + i.UTC().Format(instantLayout) + `"`), nil
}
