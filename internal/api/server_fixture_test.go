package api_test

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"resource-lock-manager/internal/api"
	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/store"
	"resource-lock-manager/internal/testdb"
)

func TestMain(m *testing.M) {
	code := testdb.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		println(err.Error())
		code = 1
	}
	os.Exit(code)
}

// maxTTL is the maximum TTL of the servers under test, with which locks may also never
// expire.
const maxTTL = lock.LongestTTL

// maxWait is the maximum wait_seconds of the servers under test.
const maxWait = 5 * time.Minute

// start is the time at which the clock of every SQLite server stands until the test
// advances it. It is that of the README.
var start = time.Date(2024, 1, 15, 10, 30, 0, 123456000, time.UTC)

// clock is a steady clock that only the test advances.
type clock struct{ nanos atomic.Int64 }

func (c *clock) now() time.Duration      { return time.Duration(c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// databaseID is the id of the database of every server.
const databaseID = "00112233445566778899aabbccddeeff"

// server serves the API over TCP.
type server struct {
	*httptest.Server
	driver string
	clock  *clock           // of SQLite; Postgres has its own
	locks  *service.Service // for the housekeeping, which has no endpoint
}

// onBoth runs a test against the real service on a fresh database of each driver.
func onBoth(t *testing.T, test func(t *testing.T, s *server)) {
	onBothWithin(t, service.Config{}, test)
}

// onBothWithin is like onBoth with the bounds of an operator. Zero bounds are those of
// the tests.
func onBothWithin(t *testing.T, bounds service.Config, test func(t *testing.T, s *server)) {
	for _, driver := range []string{store.SQLite, store.Postgres} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			test(t, boundedServer(t, driver, bounds))
		})
	}
}

// realServer serves the real service on a fresh database.
func realServer(t *testing.T, driver string) *server {
	t.Helper()
	return boundedServer(t, driver, service.Config{})
}

func boundedServer(t *testing.T, driver string, bounds service.Config) *server {
	t.Helper()
	db, c := openStore(t, driver, sourceOf(t, driver))
	log := slog.New(slog.DiscardHandler)
	locks := startedService(t, db, bounds, log)
	s := serve(t, locks, db.Ping, log)
	t.Cleanup(locks.StopWaiting) // the server closes only after its last request was answered
	s.driver, s.clock, s.locks = driver, c, locks
	return s
}

// sourceOf returns the source of a fresh database.
func sourceOf(t *testing.T, driver string) string {
	t.Helper()
	if driver == store.SQLite {
		return testdb.SQLite(t)
	}
	return testdb.Postgres(t)
}

// withLimits returns the bounds of a service that has only the given limits of requests.
func withLimits(limits lock.Limits) service.Config { return service.Config{Limits: limits} }

// startedStore is a store that reports its commits once it is started.
type startedStore interface {
	service.Store
	Start(onCommit func(service.Commit))
}

// newService returns a service on a store that it starts.
func newService(db startedStore, bounds service.Config, log *slog.Logger) *service.Service {
	locks := service.New(db, bounds, log)
	db.Start(locks.Committed)
	return locks
}

// startedService returns a service on which requests may wait. It replaces zero bounds.
// It never rechecks, so that whatever happens soon was caused by a notification or a
// timer.
func startedService(t *testing.T, db startedStore, bounds service.Config, log *slog.Logger) *service.Service {
	t.Helper()
	bounds.Limits.MaxTTL = cmp.Or(bounds.Limits.MaxTTL, maxTTL)
	bounds.Limits.MaxWait = cmp.Or(bounds.Limits.MaxWait, maxWait)
	bounds.MaxWaiters = cmp.Or(bounds.MaxWaiters, 10_000)
	bounds.MaxQueue = cmp.Or(bounds.MaxQueue, 10_000)
	bounds.KeepPlace = cmp.Or(bounds.KeepPlace, time.Minute)
	bounds.Recheck = cmp.Or(bounds.Recheck, time.Hour)
	locks := newService(db, bounds, log)
	locks.Start()
	t.Cleanup(locks.Stop)
	return locks
}

// openStore opens a store. On SQLite its clock stands still.
func openStore(tb testing.TB, driver, source string) (*store.Store, *clock) {
	tb.Helper()
	c := &clock{}
	db, err := store.Open(tb.Context(), store.Config{
		Driver:   driver,
		Source:   source,
		MaxQueue: 1024,
		Logger:   slog.New(slog.DiscardHandler),
		Wall:     func() time.Time { return start },
		Steady:   c.now,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db, c
}

// serve starts a server with the settings of production. It ends before what the test has
// opened earlier.
func serve(tb testing.TB, locks *service.Service, ping func(context.Context) error, log *slog.Logger) *server {
	tb.Helper()
	return serveHandler(tb, api.New(locks, databaseID, ping, log), log)
}

func serveHandler(tb testing.TB, handler http.Handler, log *slog.Logger) *server {
	tb.Helper()
	s := &server{Server: httptest.NewUnstartedServer(nil)}
	s.Config = api.NewServer(handler, log)
	s.Start()
	s.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = crowd
	tb.Cleanup(s.Close)
	return s
}
