package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"net"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// A transaction makes its own settings, in the message that begins it. A setting of the
// session would stay on a connection that a pooler gives to another program next, and
// might be missing on the connection that it gives to this program.
const (
	// beginReading is for transactions that only read. If this server is frozen during
	// one, its snapshot ends soon.
	beginReading = `
		begin isolation level repeatable read read only;
		SET LOCAL idle_in_transaction_session_timeout = '5s'`

	// beginWriting is for all others. The commit is synced even if that is not the
	// default of the database. If this server is frozen, its rows do not stay locked for
	// long. All rows are found by a key. The planner, however, has no statistics yet of a
	// queue that has just become long, and would read all of it to find its head.
	beginWriting = `
		begin isolation level read committed;
		SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
		SET LOCAL idle_in_transaction_session_timeout = '5s';
		SET LOCAL enable_seqscan = off;
		SET LOCAL enable_bitmapscan = off;
		SET LOCAL jit = off`
)

// postgresConnector opens the connections of a pool.
type postgresConnector struct{ conf pgx.ConnConfig }

func (c postgresConnector) Driver() driver.Driver { return stdlib.GetDefaultDriver() }

func (c postgresConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn := &postgresConn{}
	conf := c.conf
	conf.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if conn.committing.Load() {
			return nil, errCancel
		}
		return c.conf.DialFunc(ctx, network, address)
	}
	opened, err := stdlib.GetConnector(conf).Connect(ctx)
	if err != nil {
		return nil, err
	}
	conn.Conn = opened.(*stdlib.Conn)
	return conn, nil
}

// postgresConn is the connection of pgx, with other transactions.
type postgresConn struct {
	*stdlib.Conn

	// committing keeps pgx from cancelling a COMMIT that takes too long or whose
	// connection breaks. Postgres may have committed already and be waiting for a
	// synchronous standby. If it is cancelled, it stops waiting and shows a commit that
	// the standby may not have. pgx asks for a cancellation over another connection.
	committing atomic.Bool
}

var errCancel = errors.New("a COMMIT is not cancelled")

// BeginTx begins a transaction and makes its settings by one message.
func (c *postgresConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	begin := beginWriting
	if opts.ReadOnly {
		begin = beginReading
	}
	tx, err := c.Conn.Conn().BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
	if err != nil {
		return nil, err
	}
	return postgresTx{ctx, tx, c}, nil
}

// CheckNamedValue sends an instant as a time: its text would be read in the time zone of
// the session.
func (c *postgresConn) CheckNamedValue(v *driver.NamedValue) error {
	if i, ok := v.Value.(instant); ok {
		v.Value = i.Time
	}
	return c.Conn.CheckNamedValue(v)
}

// postgresTx is the transaction of pgx, for database/sql.
type postgresTx struct {
	ctx  context.Context
	tx   pgx.Tx
	conn *postgresConn
}

func (t postgresTx) Commit() error {
	t.conn.committing.Store(true)
	err := t.tx.Commit(t.ctx)
	t.conn.committing.Store(t.tx.Conn().IsClosed()) // pgx has not finished with a closed connection
	return err
}

func (t postgresTx) Rollback() error { return t.tx.Rollback(t.ctx) }
