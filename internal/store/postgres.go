package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
)

// The most connections that one server opens. Writing has its own, so that reads never keep a commit waiting.
const (
	postgresWriters = 2
	postgresReaders = 8
)

// postgresTimeout bounds a transaction or a query, and with it the time for which a database that stopped answering holds
// up the queue.
const postgresTimeout = 10 * time.Second

const (
	// The outer SELECT reads the clock once a row has come out of "locked", so after it was locked; the LEFT JOIN makes
	// it answer when there is no row at all.
	postgresLock = `
		WITH locked AS MATERIALIZED (
			SELECT ` + columns + ` FROM resource_locks
			WHERE resource_name = ANY (ARRAY(SELECT json_array_elements_text(?::json)))
			ORDER BY resource_name COLLATE "C" FOR UPDATE
		)
		SELECT clock_timestamp(), ` + optionalColumns + ` FROM (SELECT 1) AS one LEFT JOIN locked ON true`
	postgresLook = `
		SELECT statement_timestamp(), ` + optionalColumns + ` FROM (SELECT 1) AS one
		LEFT JOIN resource_locks ON resource_name = ANY (ARRAY(SELECT json_array_elements_text(?::json)))`
	// Rows and events share a statement, and with it the way to the database and back.
	postgresWrite = `
		WITH happened AS (
			INSERT INTO lock_events (` + eventColumns + `)
			SELECT kind, at AT TIME ZONE 'UTC', resource_name, process_id, fencing_token, locked_at AT TIME ZONE 'UTC',
			       coalesce(renewals, 0), reason, ended_by, hold_reason
			FROM json_to_recordset(?::json) AS row (kind text, at timestamp, resource_name text, process_id text,
			       fencing_token bigint, locked_at timestamp, renewals bigint, reason text, ended_by text,
			       hold_reason text)
		)
		INSERT INTO resource_locks (` + columns + `)
		SELECT coalesce(id, nextval(pg_get_serial_sequence('resource_locks', 'id'))), resource_name, process_id,
		       locked_at AT TIME ZONE 'UTC', expires_at AT TIME ZONE 'UTC', coalesce(is_active, false),
		       ended_at AT TIME ZONE 'UTC', fencing_token, request_id, reason, metadata,
		       renewed_at AT TIME ZONE 'UTC', coalesce(renewals, 0), min_hold_until AT TIME ZONE 'UTC',
		       released_at AT TIME ZONE 'UTC', coalesce(waiters, 0), coalesce(away, 0), coalesce(last_ticket, 0),
		       queued_at AT TIME ZONE 'UTC', coalesce(connection, 0)
		FROM json_to_recordset(?::json) AS row (id bigint, resource_name text, process_id text, locked_at timestamp,
		       expires_at timestamp, is_active boolean, ended_at timestamp, fencing_token bigint, request_id text,
		       reason text, metadata text, renewed_at timestamp, renewals bigint, min_hold_until timestamp,
		       released_at timestamp, waiters bigint, away bigint, last_ticket bigint, queued_at timestamp,
		       connection bigint)` + onConflict + `
		RETURNING id, resource_name`

	postgresFirst = `
		SELECT w.* FROM json_array_elements_text(?::json) AS r (id) CROSS JOIN LATERAL (
			SELECT w.* ` + connectedOf + ` AND w.resource_id = r.id::bigint ORDER BY w.ticket` + limited + `) AS w`
	postgresPlaces = `
		SELECT w.* FROM json_to_recordset(?::json) AS p (resource_id bigint, process_id text, request_id text)
		JOIN lock_waiters AS w ON w.resource_id = p.resource_id AND w.request_id = p.request_id AND w.process_id = p.process_id`
	postgresEnqueue = `
		INSERT INTO lock_waiters
		SELECT resource_id, ticket, server_id, connection, process_id, request_id, waiting_since AT TIME ZONE 'UTC',
		       away_until AT TIME ZONE 'UTC', ttl_us, min_hold_us, reason, metadata
		FROM json_to_recordset(?::json) AS row (resource_id bigint, ticket bigint, server_id bigint, connection bigint,
		       process_id text, request_id text, waiting_since timestamp, away_until timestamp, ttl_us bigint,
		       min_hold_us bigint, reason text, metadata text)` + onTicket
	postgresDequeue = `
		DELETE FROM lock_waiters AS w USING json_to_recordset(?::json) AS row (resource_id bigint, ticket bigint)
		WHERE w.resource_id = row.resource_id AND w.ticket = row.ticket`
	postgresNotify = `
		SELECT pg_notify('lockd_' || server || CASE WHEN name IS NULL THEN '_superseded' ELSE '' END, coalesce(name, connection::text))
		FROM json_to_recordset(?::json) AS row (server bigint, name text, connection bigint)`

	// onConflict serves both dialects. A row that was inserted after this transaction looked has another id: it is left alone.
	onConflict = `
		ON CONFLICT (resource_name) DO UPDATE SET process_id = excluded.process_id, locked_at = excluded.locked_at,
			expires_at = excluded.expires_at, is_active = excluded.is_active, ended_at = excluded.ended_at,
			fencing_token = excluded.fencing_token, request_id = excluded.request_id, reason = excluded.reason,
			metadata = excluded.metadata, renewed_at = excluded.renewed_at, renewals = excluded.renewals,
			min_hold_until = excluded.min_hold_until, released_at = excluded.released_at, waiters = excluded.waiters,
			away = excluded.away, last_ticket = excluded.last_ticket, queued_at = excluded.queued_at,
			connection = excluded.connection
		WHERE resource_locks.id = excluded.id`

	// onTicket serves both dialects: a waiter that comes back, or goes away for a while, keeps its ticket.
	onTicket = `
		ON CONFLICT (resource_id, ticket) DO UPDATE SET server_id = excluded.server_id, connection = excluded.connection,
			away_until = excluded.away_until, ttl_us = excluded.ttl_us, min_hold_us = excluded.min_hold_us,
			reason = excluded.reason, metadata = excluded.metadata`
)

// openPostgres connects a pool; any number of servers may use the same database.
func openPostgres(ctx context.Context, cfg Config) (_ *Store, err error) {
	conf, err := pgx.ParseConfig(cfg.Source)
	if err != nil {
		return nil, err
	}
	conf.RuntimeParams["client_encoding"] = "UTF8" // whatever the defaults of the role say
	if conf.RuntimeParams["application_name"] == "" {
		conf.RuntimeParams["application_name"] = "lockd"
	}
	if mode := conf.DefaultQueryExecMode; mode == pgx.QueryExecModeExec || mode == pgx.QueryExecModeSimpleProtocol {
		// Results come as text then, and pgx reads moments in one form only. PgBouncer keeps
		// this parameter apart for each client.
		conf.RuntimeParams["datestyle"] = "ISO"
	}
	if conf.ConnectTimeout == 0 {
		conf.ConnectTimeout = postgresTimeout / 2
		if n := hosts(conf); n > 1 {
			// For each of them: all but the last may be silent, and there is still time to renew a lease.
			conf.ConnectTimeout = leaseTime / time.Duration(n+1)
		}
	}
	writerDB, readerDB := postgresPool(conf, postgresWriters), postgresPool(conf, postgresReaders)
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(readerDB, writerDB))
		}
	}()
	// GORM's own ping would not heed ctx.
	if err := writerDB.PingContext(ctx); err != nil {
		return nil, unreachable(conf, err)
	}
	if err := checkDatabase(ctx, writerDB); err != nil {
		return nil, err
	}
	tables := schema{"postgres", postgresColumns, "use a database or a schema of its own (search_path in DATABASE_URL)", migrateAlone}
	if err := migrate(ctx, writerDB, tables, cfg.Logger); err != nil {
		return nil, notMigrated(err)
	}
	if err := checkPrivileges(ctx, writerDB); err != nil {
		return nil, err
	}
	warnOfUnsafeServer(ctx, writerDB, cfg)
	writer, err := gorm.Open(postgres.New(postgres.Config{Conn: writerDB}), gormConfig(false))
	if err != nil {
		return nil, err
	}
	reader, err := gorm.Open(postgres.New(postgres.Config{Conn: readerDB}), gormConfig(false))
	if err != nil {
		return nil, err
	}
	notify := ""
	if cfg.Notifications {
		notify = postgresNotify
	}
	return &Store{
		dialect: dialect{
			now:     "statement_timestamp()",
			lock:    postgresLock,
			look:    postgresLook,
			queues:  "SELECT " + waiterColumns + " FROM (" + postgresFirst + " UNION " + postgresPlaces + ") AS w " + theirServers,
			notify:  notify,
			write:   writePostgres,
			enqueue: func(tx *gorm.DB, rows []waiterRow) error { return execute(tx, postgresEnqueue, rows) },
			dequeue: func(tx *gorm.DB, rows []waiterRow) error { return execute(tx, postgresDequeue, rows) },
			beat:    postgresBeat,
			names: nameOrder{ // the operators of text_pattern_ops
				from: "resource_name ~>=~ ?", after: "resource_name ~>~ ?", before: "resource_name ~<~ ?",
				sorted: "resource_name USING ~<~",
			},
			proof:    postgresProof,
			snapshot: &sql.TxOptions{ReadOnly: true},
			timeout:  postgresTimeout,
			classify: classifyPostgres,
			refused:  refusedByPostgres,
		},
		writer: writer,
		reader: reader,
		close:  func() error { return closeAll(readerDB, writerDB) },
	}, nil
}

// writePostgres returns errRace when a row that had no id was there meanwhile.
func writePostgres(tx *gorm.DB, saved []lockRow, events []eventRow) error {
	savedList, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	eventList, err := json.Marshal(events)
	if err != nil {
		return err
	}
	ids := make(map[string]int64, len(saved))
	err = query(tx, func(rows *sql.Rows) error {
		var id int64
		var name string
		err := rows.Scan(&id, &name)
		ids[name] = id
		return err
	}, postgresWrite, string(eventList), string(savedList))
	if err == nil && len(ids) < len(saved) {
		err = errRace
	}
	for i := range saved {
		saved[i].ID = ids[saved[i].ResourceName]
	}
	return err
}

// execute runs a statement that reads a JSON array of rows.
func execute[T any](tx *gorm.DB, statement string, rows []T) error {
	list, err := json.Marshal(rows)
	if err != nil {
		return err
	}
	return tx.Exec(statement, string(list)).Error
}

// hosts tells how many there are to connect to. Each has one entry for every kind of encryption that may be tried.
func hosts(conf *pgx.ConnConfig) int {
	addresses := map[string]struct{}{net.JoinHostPort(conf.Host, fmt.Sprint(conf.Port)): {}}
	for _, f := range conf.Fallbacks {
		addresses[net.JoinHostPort(f.Host, fmt.Sprint(f.Port))] = struct{}{}
	}
	return len(addresses)
}

// postgresPool makes a pool of up to n connections.
func postgresPool(conf *pgx.ConnConfig, n int) *sql.DB {
	db := sql.OpenDB(postgresConnector{*conf})
	keep(db, n)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db
}

const postgresColumns = `
	SELECT c.relname || '.' || a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
	WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped`

// migrateAlone has the other servers wait that start at the same time. The lock ends with the
// transaction: one of the session would stay on a connection of a pooler.
func migrateAlone(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `
		SET LOCAL statement_timeout = 0;
		SET LOCAL lock_timeout = '60s';
		SELECT pg_advisory_xact_lock(hashtextextended('lockd_schema_version', 0))`)
	if err != nil {
		return err
	}
	// Tables are made in the first schema of the search path, but found in any.
	var first, found string
	err = tx.QueryRowContext(ctx, `
		SELECT current_schema(), relnamespace::regnamespace FROM pg_class
		WHERE oid = coalesce(to_regclass('lockd_schema_version'), to_regclass('resource_locks'))
			AND relnamespace <> (SELECT oid FROM pg_namespace WHERE nspname = current_schema())`).Scan(&first, &found)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("its search_path leads to locks in the schema %s, but begins with the schema %s: "+
		"name only the one in which the locks shall be (search_path in DATABASE_URL)", found, first)
}

// warnOfUnsafeServer tells the operator when the database itself is set not to sync.
func warnOfUnsafeServer(ctx context.Context, db *sql.DB, cfg Config) {
	var fsync string
	if err := db.QueryRowContext(ctx, "SHOW fsync").Scan(&fsync); err == nil && fsync == "off" {
		cfg.Logger.Warn("the Postgres server runs with fsync=off: acknowledged locks can be lost when it crashes")
	}
}

// classifyPostgres goes by SQLSTATE classes. An error without one means that the connection is of no use.
func classifyPostgres(err error) failure {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return classifyConnection(err)
	}
	switch e.Code {
	case "40001", "40P01": // serialization failure, deadlock
		return again
	case "57P01", "25P03": // the connection was closed by the server
		return again
	case "25006", "55P03", "57014": // read-only standby, lock or statement timeout
		return unavailable
	}
	switch class(e) {
	case "08", "28", "3D", "53", "57", "58": // connection, login, no such database, resources, operator, system
		return unavailable
	}
	return faulty
}

// class returns the class of an SQLSTATE, "" if there is none.
func class(e *pgconn.PgError) string { return e.Code[:min(2, len(e.Code))] }

// classifyConnection is about errors that the database did not send.
func classifyConnection(err error) failure {
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.As(err, &connect), errors.Is(err, context.DeadlineExceeded):
		return unavailable
	case pgconn.SafeToRetry(err), errors.As(err, &network), errors.Is(err, driver.ErrBadConn), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return again
	default:
		return faulty
	}
}

// refusedByPostgres: some answers to COMMIT prove that it did nothing. Postgres itself sends an
// ERROR only after a rollback; but a pooler, a proxy or a distributed engine may have passed
// COMMIT on and send an ERROR because it does not know what became of it.
func refusedByPostgres(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return errors.Is(err, pgx.ErrTxCommitRollback)
	}
	if e.SeverityUnlocalized != "ERROR" { // Severity is in the server's language
		return false
	}
	switch class(e) {
	case "23", "42": // a constraint checked at COMMIT, a statement that is not permitted
		return true
	case "25": // the transaction failed before; but where there is none, a pooler may have lost one
		return e.Code != "25P01"
	case "40": // serialization failure, deadlock
		return e.Code != "40003" // statement completion unknown
	}
	return false
}
