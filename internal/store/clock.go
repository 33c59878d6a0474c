package store

import (
	"database/sql"
	"errors"
	"time"

	"gorm.io/gorm"
)

// steadyClock is the clock of a SQLite database: wall time at a start, then a steady clock that counts through suspend, so
// that stepping the wall clock neither ends nor extends a hold. As long as the machine is not booted it counts through
// restarts as well: the database keeps the moment at which the steady clock was zero.
type steadyClock struct {
	zero   time.Time            // the moment at which steady was zero
	steady func() time.Duration // grows evenly, also while the machine is suspended
}

func (c *steadyClock) now() time.Time {
	return c.zero.Add(c.steady()).Truncate(time.Microsecond)
}

// newSteadyClock goes on with the clock of the last server, or adopts the wall clock: where nothing is held and nobody waits,
// so that it makes no difference, and where it must, because the machine was booted since. Then it starts no earlier than the
// newest moment in the database, so that a wall clock that went back does not extend holds.
func newSteadyClock(db *gorm.DB, cfg Config) (*steadyClock, error) {
	wall, steady, boot := time.Now, sinceBoot, cfg.BootID
	if cfg.Wall != nil {
		wall = cfg.Wall
	}
	if cfg.Steady != nil {
		steady = cfg.Steady
	}
	if boot == "" {
		boot = bootID()
	}
	now, passed := wall().UTC(), steady()
	c := &steadyClock{zero: now.Add(-passed), steady: steady}

	var used bool
	var lastBoot string
	var lastZero int64
	err := db.Raw("SELECT EXISTS (SELECT 1 FROM resource_locks WHERE is_active) OR EXISTS (SELECT 1 FROM lock_waiters)").Row().Scan(&used)
	if err != nil {
		return nil, err
	}
	err = db.Raw("SELECT boot_id, zero_us FROM service_clock").Row().Scan(&lastBoot, &lastZero)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	if used {
		if boot != "" && boot == lastBoot {
			c.zero = time.UnixMicro(lastZero).UTC()
		}
		newest, err := newestMoment(db)
		if err != nil {
			return nil, err
		}
		if newest.After(c.now()) {
			c.zero = newest.Add(-passed)
		}
	}
	c.zero = c.zero.Truncate(time.Microsecond) // as it is kept
	if ahead := c.zero.Add(passed).Sub(now); ahead.Abs() > time.Second {
		cfg.Logger.Warn("locks expire by a clock that is not this machine's wall clock, until the server is started while nothing is held",
			"ahead_by", ahead.Round(time.Millisecond).String())
	}
	return c, db.Exec(`INSERT INTO service_clock VALUES (1, ?, ?)
		ON CONFLICT (id) DO UPDATE SET boot_id = excluded.boot_id, zero_us = excluded.zero_us`, boot, c.zero.UnixMicro()).Error
}

// newestMoment is the newest one that is stored of what is held, and of all that happened. Older moments may be later than it:
// they are of a time before the wall clock was adopted.
func newestMoment(db *gorm.DB) (newest time.Time, err error) {
	var locked, renewed, released, event instant
	row := db.Raw(`SELECT max(locked_at), max(renewed_at), max(released_at), (SELECT at FROM lock_events ORDER BY id DESC LIMIT 1)
		FROM resource_locks WHERE is_active`).Row()
	if err := row.Scan(&locked, &renewed, &released, &event); err != nil {
		return time.Time{}, err
	}
	for _, i := range []instant{locked, renewed, released, event} {
		if i.After(newest) {
			newest = i.Time
		}
	}
	return newest, nil
}
