package store

import (
	"context"
	"time"

	"gorm.io/gorm"
)

// A server counts as alive for leaseTime after it was heard of, and is heard of every leaseBeat. It has to be dead for
// others within two seconds, and must not be because of a short stall.
const (
	leaseTime = 1750 * time.Millisecond
	leaseBeat = 350 * time.Millisecond
)

// enlist makes this server known, as one that is alive.
func (s *Store) enlist(ctx context.Context) error {
	return s.write(ctx, func(tx *gorm.DB) error {
		if s.dialect.beat != "" {
			return tx.Raw("INSERT INTO lock_servers (alive_until) VALUES (" + leaseEnd + ") RETURNING id").Row().Scan(&s.server)
		}
		// No other server has the file open, so all that are known are dead.
		if err := tx.Exec("UPDATE lock_servers SET alive_until = ? WHERE alive_until IS NULL", instant{s.dialect.clock()}).Error; err != nil {
			return err
		}
		return tx.Raw("INSERT INTO lock_servers DEFAULT VALUES RETURNING id").Row().Scan(&s.server)
	})
}

// leaseEnd is the end of a lease that begins now, on Postgres.
const leaseEnd = "clock_timestamp() + interval '1750 ms'"

const (
	// The lease is not committed durably: it does not wait for the disk or for a standby.
	postgresBeat = `
		INSERT INTO lock_servers SELECT ?, ` + leaseEnd + ` WHERE set_config('synchronous_commit', 'off', true) = 'off'
		ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until`
	postgresEnd = `
		UPDATE lock_servers SET alive_until = clock_timestamp()
		WHERE id = ? AND set_config('synchronous_commit', 'off', true) = 'off'`

	// postgresProof commits as durably as a transaction does, a row that stands for no server.
	postgresProof = `
		INSERT INTO lock_servers SELECT -(?::bigint), clock_timestamp()
		WHERE set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), true) <> 'off'
		ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until`
)

// beat has this server heard of until ctx ends. It says nothing of a failure: whoever needs the database notices.
func (s *Store) beat(ctx context.Context, done chan<- struct{}) {
	defer close(done)
	ticker := time.NewTicker(leaseBeat)
	defer ticker.Stop()
	// A statement is not cut short by the end of ctx: it could still take effect, after the one that ends the lease.
	say := func(statement string) {
		attempt, cancel := context.WithTimeout(context.Background(), leaseTime)
		defer cancel()
		_ = s.writer.WithContext(attempt).Exec(statement, s.server).Error
	}
	for {
		select {
		case <-ctx.Done():
			say(postgresEnd)
			return
		case <-ticker.C:
			say(s.dialect.beat)
		}
	}
}
