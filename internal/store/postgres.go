package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"

	"resource-lock-manager/internal/lifecycle"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
)

// The maximum number of connections that one server opens. Writing has its own, so that
// reads never delay a commit.
const (
	postgresWriters = 2
	postgresReaders = 8
)

// postgresTimeout bounds a transaction or a query, and so the time for which a database
// that does not answer delays the queue of commands.
const postgresTimeout = 10 * time.Second

// postgres is the backend for a Postgres database, which any number of servers may share.
type postgres struct {
	pools
	notifications bool // this server notifies the others

	writerDB, readerDB *sql.DB
	loops              lifecycle.Loops
}

// openPostgres connects to a database.
func openPostgres(ctx context.Context, cfg Config) (backend, pools, error) {
	conf, err := parsePostgresURL(cfg.Source)
	if err != nil {
		return nil, pools{}, err
	}
	p := &postgres{
		pools: pools{
			timeout: postgresTimeout,
			names: nameOrder{ // the operators of text_pattern_ops
				from: "resource_name ~>=~ ?", after: "resource_name ~>~ ?", before: "resource_name ~<~ ?",
				sorted: "resource_name USING ~<~",
			},
		},
		notifications: cfg.Notifications,
		writerDB:      postgresPool(conf, postgresWriters),
		readerDB:      postgresPool(conf, postgresReaders),
	}
	if err := p.open(ctx, conf, cfg); err != nil {
		return nil, pools{}, errors.Join(err, closeAll(p.readerDB, p.writerDB))
	}
	return p, p.pools, nil
}

// parsePostgresURL returns the settings of the connections.
func parsePostgresURL(url string) (*pgx.ConnConfig, error) {
	conf, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	conf.RuntimeParams["client_encoding"] = "UTF8" // whatever the defaults of the role are
	if conf.RuntimeParams["application_name"] == "" {
		conf.RuntimeParams["application_name"] = "lockd"
	}
	if mode := conf.DefaultQueryExecMode; mode == pgx.QueryExecModeExec || mode == pgx.QueryExecModeSimpleProtocol {
		// In these modes results are text, and pgx reads timestamps in one form only.
		// PgBouncer keeps this parameter for each client.
		conf.RuntimeParams["datestyle"] = "ISO"
	}
	if conf.ConnectTimeout == 0 {
		conf.ConnectTimeout = postgresTimeout / 2
		if n := hosts(conf); n > 1 {
			// The timeout is for each host. Even if all but the last do not answer, there
			// is time to renew a lease.
			conf.ConnectTimeout = leaseTime / time.Duration(n+1)
		}
	}
	return conf, nil
}

// hosts returns the number of addresses to connect to. Each has one entry for every kind
// of encryption that may be tried.
func hosts(conf *pgx.ConnConfig) int {
	addresses := map[string]struct{}{net.JoinHostPort(conf.Host, fmt.Sprint(conf.Port)): {}}
	for _, f := range conf.Fallbacks {
		addresses[net.JoinHostPort(f.Host, fmt.Sprint(f.Port))] = struct{}{}
	}
	return len(addresses)
}

// postgresPool returns a pool of up to n connections.
func postgresPool(conf *pgx.ConnConfig, n int) *sql.DB {
	db := sql.OpenDB(postgresConnector{*conf})
	setPoolSize(db, n)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db
}

// open checks the database, brings its schema up to date and completes p.
func (p *postgres) open(ctx context.Context, conf *pgx.ConnConfig, cfg Config) (err error) {
	// GORM's own ping would not respect ctx.
	if err := p.writerDB.PingContext(ctx); err != nil {
		return unreachable(conf, err)
	}
	if err := checkDatabase(ctx, p.writerDB); err != nil {
		return err
	}
	tables := schema{
		folder: "postgres", columns: statement("postgres/table_columns.sql"), prepare: migrateAlone, nameTaken: nameTaken,
		apart: "use a database or a schema of its own (search_path in DATABASE_URL)",
	}
	if err := migrate(ctx, p.writerDB, tables, cfg.Logger); err != nil {
		return notMigrated(err)
	}
	if err := checkPrivileges(ctx, p.writerDB); err != nil {
		return err
	}
	warnOfUnsafeServer(ctx, p.writerDB, cfg)
	p.writer, err = gorm.Open(gormpostgres.New(gormpostgres.Config{Conn: p.writerDB}), gormConfig(false))
	if err != nil {
		return err
	}
	p.reader, err = gorm.Open(gormpostgres.New(gormpostgres.Config{Conn: p.readerDB}), gormConfig(false))
	return err
}

func (p *postgres) start(server int64) {
	p.loops.Start(func(ctx context.Context) { p.heartbeat(ctx, server) })
}

func (p *postgres) close() error {
	p.loops.Stop()
	return closeAll(p.readerDB, p.writerDB)
}

var (
	postgresNow             = statement("postgres/now.sql")
	postgresRelaxDurability = statement("postgres/relax_durability.sql")
	postgresProve           = statement("postgres/prove.sql")
)

func (p *postgres) now(db *gorm.DB) (time.Time, error) {
	var now instant
	err := db.Raw(postgresNow).Row().Scan(&now)
	return now.Time, err
}

// relaxDurability implements backend. What housekeeping deletes again after a fail-over
// does no harm, and no connection waits for a standby that does not answer.
func (p *postgres) relaxDurability(tx *gorm.DB) error { return tx.Exec(postgresRelaxDurability).Error }

func (p *postgres) prove(ctx context.Context, server int64) error {
	return p.writer.WithContext(ctx).Exec(postgresProve, server).Error
}

// cached implements backend: other servers change the database.
func (p *postgres) cached(string) (service.Snapshot, bool) { return service.Snapshot{}, false }

func (p *postgres) changing([]string) {}

func (p *postgres) committed(map[string]lock.Resource) {}

// historyParts implements backend: every event is in the indexes.
func (p *postgres) historyParts() []where { return []where{{}} }

func (p *postgres) checkWritable() error { return nil }

func (p *postgres) checkReadable() error { return nil }
