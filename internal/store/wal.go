package store

import (
	"context"
	"database/sql"
	"os"
	"sync"
	"time"
)

const (
	// walMost is the size of a write-ahead log that is short enough, in bytes: SQLite by itself begins it anew when it has a
	// quarter of that, unless somebody reads at that moment.
	walMost = 16 << 20
	// walInterval is how often its size is looked at.
	walInterval = time.Second
	// checkpointPatience is how long commits wait for those who read, in milliseconds.
	checkpointPatience = "500"
	// checkpointPause is how long it takes until the next attempt when they have waited in vain.
	checkpointPause = 10 * time.Second
)

// walKeeper keeps the write-ahead log of a SQLite file short. SQLite begins the log anew only when nobody reads from it, and
// with enough readers there is always one. All methods work on nil.
type walKeeper struct {
	file    *databaseFile
	db      *sql.DB
	reading func() bool // whether a long list is being read, for which an attempt would wait in vain

	stopOnce sync.Once
	stopped  chan struct{}
	loops    sync.WaitGroup
}

// newWALKeeper returns nil for a database in memory.
func newWALKeeper(file *databaseFile, db *sql.DB, reading func() bool) *walKeeper {
	if file == nil {
		return nil
	}
	return &walKeeper{file: file, db: db, reading: reading, stopped: make(chan struct{})}
}

// start begins to look after the log. It is called once.
func (k *walKeeper) start() {
	if k == nil {
		return
	}
	k.loops.Go(func() {
		timer := time.NewTimer(walInterval)
		defer timer.Stop()
		for {
			select {
			case <-k.stopped:
				return
			case <-timer.C:
				timer.Reset(k.shorten())
			}
		}
	})
}

// stop may be called any number of times, also without start.
func (k *walKeeper) stop() {
	if k == nil {
		return
	}
	k.stopOnce.Do(func() { close(k.stopped) })
	k.loops.Wait()
}

// shorten empties the log if it is too long, and returns how long it can be left alone.
func (k *walKeeper) shorten() time.Duration {
	long := func() bool {
		info, err := os.Stat(k.file.real + "-wal")
		return err == nil && info.Size() > walMost
	}
	if !long() || k.reading() || k.file.check() != nil {
		return walInterval
	}
	// Most of the log is moved without keeping commits waiting. An error means that the next commit fails as well, and says so.
	for _, mode := range []string{"PASSIVE", "TRUNCATE"} {
		_, _ = k.db.ExecContext(context.Background(), "PRAGMA wal_checkpoint("+mode+")")
	}
	return checkpointPause
}
