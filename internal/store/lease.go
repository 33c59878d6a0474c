package store

import (
	"context"
	"time"

	"gorm.io/gorm"
)

// A server is alive for leaseTime after it last renewed its lease, which it does every
// leaseInterval. It must be dead for other servers within two seconds, but not because of
// a short stall.
const (
	leaseTime     = 1750 * time.Millisecond
	leaseInterval = 350 * time.Millisecond
)

var (
	postgresRegisterServer = statement("postgres/register_server.sql")
	postgresRenewLease     = statement("postgres/renew_lease.sql")
	postgresEndLease       = statement("postgres/end_lease.sql")
)

func (p *postgres) registerServer(tx *gorm.DB) (server int64, err error) {
	err = tx.Raw(postgresRegisterServer).Row().Scan(&server)
	return server, err
}

// heartbeat renews the lease of a server until ctx ends, and then ends the lease. It
// reports no failure: whatever else needs the database fails as well.
func (p *postgres) heartbeat(ctx context.Context, server int64) {
	ticker := time.NewTicker(leaseInterval)
	defer ticker.Stop()
	// A statement is not cancelled when ctx ends: it could take effect after the one that
	// ends the lease.
	run := func(statement string) {
		attempt, cancel := context.WithTimeout(context.Background(), leaseTime)
		defer cancel()
		_ = p.writer.WithContext(attempt).Exec(statement, server).Error
	}
	for {
		select {
		case <-ctx.Done():
			run(postgresEndLease)
			return
		case <-ticker.C:
			run(postgresRenewLease)
		}
	}
}
