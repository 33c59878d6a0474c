package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/store"
)

// The write-ahead log becomes short again although some connection always reads from it,
// which keeps SQLite from starting it again.
func TestLogIsShortenedBesideReaders(t *testing.T) {
	t.Parallel()
	cfg := config(t, store.SQLite)
	s := open(t, cfg)
	size := func() int64 {
		info, err := os.Stat(cfg.Source + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	const long = 16 << 20
	metadata := `{"a":"` + strings.Repeat("x", lock.MaxMetadataSize-10) + `"}`
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()

	db := connect(t, cfg)
	all.Go(func() { // each reader goes on until the next one has started
		var last *sql.Tx
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		for ; ctx.Err() == nil; <-ticker.C {
			tx, err := db.BeginTx(context.Background(), nil)
			if err == nil {
				_, err = tx.Exec("SELECT count(*) FROM resource_locks")
			}
			if err != nil {
				t.Error(err)
				return
			}
			if last != nil {
				_ = last.Rollback()
			}
			last = tx
		}
		_ = last.Rollback()
	})
	for i := range 64 {
		all.Go(func() {
			name := fmt.Sprint(i)
			c := acquire(name, "p")
			c.Metadata = metadata
			_, err := s.Execute(context.Background(), c)
			for err == nil && ctx.Err() == nil {
				_, err = s.Execute(context.Background(), lock.Renew{Resource: name, ProcessID: "p", TTL: time.Hour})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "the log is long", func() bool { return size() > long })
	eventually(t, "the log is short again", func() bool { return size() < long })
}
