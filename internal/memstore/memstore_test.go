package memstore_test

import (
	"testing"
	"time"

	"resource-lock-manager/internal/memstore"
	"resource-lock-manager/internal/storetest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(testing.TB) storetest.Database {
		db := memstore.NewDatabase(time.Now)
		return storetest.Database{Shared: true, Open: func(testing.TB) storetest.Store { return db.Open() }}
	})
}
