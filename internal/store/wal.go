package store

import (
	"context"
	"database/sql"
	"os"
	"time"
)

const (
	// maxLogSize is the size in bytes below which a write-ahead log is left alone. SQLite
	// by itself starts the log again at a quarter of it, unless a connection reads at
	// that time.
	maxLogSize = 16 << 20
	// logInterval is how often the size is read.
	logInterval = time.Second
	// checkpointTimeout is how long commits wait for readers, in milliseconds.
	checkpointTimeout = "500"
	// checkpointPause is the time between attempts: commits may have waited without
	// success.
	checkpointPause = 10 * time.Second
)

// keepLogShort implements location. SQLite starts the log again only when no connection
// reads from it, and with enough readers there always is one.
func (f *databaseFile) keepLogShort(ctx context.Context, db *sql.DB, streaming func() bool) {
	timer := time.NewTimer(logInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			timer.Reset(f.shortenLog(db, streaming))
		}
	}
}

// shortenLog empties the log if it is too long, and returns the time until the next call.
func (f *databaseFile) shortenLog(db *sql.DB, streaming func() bool) time.Duration {
	info, err := os.Stat(f.real + "-wal")
	if long := err == nil && info.Size() > maxLogSize; !long || streaming() || f.checkWritable() != nil {
		return logInterval
	}
	// Most of the log is moved without delaying commits. After an error the next commit
	// fails and reports it.
	for _, mode := range []string{"PASSIVE", "TRUNCATE"} {
		_, _ = db.ExecContext(context.Background(), "PRAGMA wal_checkpoint("+mode+")")
	}
	return checkpointPause
}
