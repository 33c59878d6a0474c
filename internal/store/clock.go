package store

import (
	"database/sql"
	"errors"
	"time"

	"gorm.io/gorm"
)

// steadyClock is the clock of a SQLite database: wall time at a start, then a steady
// clock that counts through suspend, so that setting the wall clock neither ends nor
// extends a hold. Until the machine is booted again it counts through restarts as well:
// the database keeps the time at which the steady clock was zero.
type steadyClock struct {
	zero   time.Time            // the time at which steady was zero
	steady func() time.Duration // grows evenly, also while the machine is suspended
}

func (c *steadyClock) now() time.Time {
	return c.zero.Add(c.steady()).Truncate(time.Microsecond)
}

// newSteadyClock continues the clock of the last server, or adopts the wall clock. It
// adopts the wall clock where nothing is held and no request waits, so that it makes no
// difference, and where it must, because the machine was booted since. In that case the
// clock starts no earlier than the newest timestamp in the database, so that a wall clock
// that went back does not extend holds.
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
	if err := db.Raw(statement("sqlite/clock_in_use.sql")).Row().Scan(&used); err != nil {
		return nil, err
	}
	err := db.Raw(statement("sqlite/read_clock.sql")).Row().Scan(&lastBoot, &lastZero)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	if used {
		if boot != "" && boot == lastBoot {
			c.zero = time.UnixMicro(lastZero).UTC()
		}
		newest, err := newestTimestamp(db)
		if err != nil {
			return nil, err
		}
		if newest.After(c.now()) {
			c.zero = newest.Add(-passed)
		}
	}
	c.zero = c.zero.Truncate(time.Microsecond) // as it is stored
	if ahead := c.zero.Add(passed).Sub(now); ahead.Abs() > time.Second {
		cfg.Logger.Warn("locks expire by a clock that is not this machine's wall clock, "+
			"until the server is started while nothing is held",
			"ahead_by", ahead.Round(time.Millisecond).String())
	}
	return c, db.Exec(statement("sqlite/write_clock.sql"), boot, c.zero.UnixMicro()).Error
}

// newestTimestamp returns the newest timestamp of the current holds and of the newest
// event. Older timestamps may be later: they are from before the wall clock was adopted.
func newestTimestamp(db *gorm.DB) (newest time.Time, err error) {
	var locked, renewed, released, event instant
	row := db.Raw(statement("sqlite/newest_timestamps.sql")).Row()
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
