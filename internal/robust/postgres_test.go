package robust_test

import (
	"database/sql"
	"fmt"
	"net/url"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/robust"
	"resource-lock-manager/internal/testdb"
	"resource-lock-manager/internal/wire"
)

// throughProxy returns the URL of a database behind a new proxy.
func throughProxy(t *testing.T, databaseURL string) (string, *robust.Proxy) {
	t.Helper()
	u, err := url.Parse(databaseURL)
	must(t, err)
	proxy := robust.NewProxy(t, u.Host)
	u.Host = proxy.Address()
	return u.String(), proxy
}

// behindProxies starts three servers, each with a proxy of its own before the database.
func behindProxies(
	t *testing.T, r *robust.Run, databaseURL string,
) (servers []*robust.Server, proxies []*robust.Proxy) {
	t.Helper()
	for range 3 {
		through, proxy := throughProxy(t, databaseURL)
		servers = append(servers, r.Servers(1, through)...)
		proxies = append(proxies, proxy)
	}
	return servers, proxies
}

// awaitLeases waits until the given number of servers have renewed their leases after
// this call. Each of them has reached the database again, and from now on its waiters
// must not be passed.
func awaitLeases(t *testing.T, db *sql.DB, servers int) {
	t.Helper()
	var now time.Time
	apptest.Eventually(t, "the database answers", func() bool {
		return db.QueryRow("SELECT clock_timestamp()").Scan(&now) == nil
	})
	apptest.Eventually(t, "the servers have their leases", func() bool {
		var alive int
		renewed := db.QueryRow(
			"SELECT count(*) FROM lock_servers WHERE alive_until > $1::timestamptz + $2::interval", now, lease)
		return renewed.Scan(&alive) == nil && alive == servers
	})
}

// lease is how long a server's lease lasts after a renewal.
const lease = "1750 ms"

// databaseKilled kills and starts the database again and again.
func databaseKilled(t *testing.T, r *robust.Run) {
	cluster := newCluster(t, testdb.Durable...)
	servers := r.Servers(3, cluster.URL("postgres"))
	r.Work(robust.Workload{}, servers...)
	db := open(t, "pgx", cluster.URL("postgres"))
	for r.Running() {
		r.Pause(between(r, 0, time.Second))
		r.Fault("database killed", robust.AllServers, func() {
			must(t, cluster.Kill())
			r.Pause(between(r, 0, 300*time.Millisecond))
			must(t, cluster.Start())
			awaitLeases(t, db, len(servers))
		})
	}
	r.Judge()
}

// standbyPromoted loses the database's machine and promotes its synchronous standby. If
// time remains, the new primary gets a standby, at the address of the lost machine. About
// every second time the lost machine does not even refuse connections.
func standbyPromoted(t *testing.T, r *robust.Run) {
	clusters := []*testdb.Cluster{newCluster(t)}
	t.Cleanup(func() {
		for _, standby := range clusters[1:] {
			must(t, standby.Close())
		}
	})
	follow := func() *testdb.Cluster {
		standby, err := clusters[len(clusters)-1].NewStandby()
		must(t, err)
		clusters = append(clusters, standby)
		return standby
	}
	follow()
	at := []*robust.Proxy{robust.NewProxy(t, clusters[0].Address()), robust.NewProxy(t, clusters[1].Address())}
	servers := r.Servers(3,
		fmt.Sprintf("postgres://postgres@%s,%s/postgres?sslmode=disable&target_session_attrs=read-write",
			at[0].Address(), at[1].Address()))
	r.Work(robust.Workload{}, servers...)
	for n := 0; ; n++ {
		r.Pause(between(r, 500*time.Millisecond, time.Second))
		kind, silent := robust.FaultKind("standby promoted"), r.Rand.IntN(2) == 0
		if silent {
			kind = "standby promoted, primary silent"
		}
		lost := at[n%2]
		r.Fault(kind, robust.AllServers, func() {
			lost.SetConditions(robust.NetworkConditions{BlackHole: silent})
			must(t, clusters[n].Kill())
			must(t, clusters[n+1].Promote())
			awaitLeases(t, open(t, "pgx", clusters[n+1].URL("postgres")), len(servers))
		})
		r.Pause(between(r, time.Second, 2*time.Second))
		lost.SetConditions(robust.NetworkConditions{})
		if !r.Running() {
			break
		}
		lost.SetUpstream(follow().Address())
	}
	r.Judge()
}

// databaseBlackHoled cuts a server off from the database: for longer than its lease, and
// sometimes for longer than its timeout for an answer of the database.
func databaseBlackHoled(t *testing.T, r *robust.Run) {
	databaseURL := testdb.Postgres(t)
	servers, proxies := behindProxies(t, r, databaseURL)
	r.Work(robust.Workload{}, servers...)
	db := open(t, "pgx", databaseURL)
	for r.Running() {
		r.Pause(between(r, 0, 500*time.Millisecond))
		length := between(r, 1800*time.Millisecond, 3*time.Second)
		if r.Long() && r.Rand.IntN(3) == 0 {
			length = between(r, 10*time.Second, 13*time.Second)
		}
		server, affected := chooseServers(r, proxies)
		r.Fault("database in a black hole", server, func() {
			setConditions(affected, robust.NetworkConditions{BlackHole: true})
			r.Pause(length)
			setConditions(affected, robust.NetworkConditions{})
			awaitLeases(t, db, len(servers))
		})
	}
	r.Judge()
}

// chooseServers returns a random server, or sometimes all servers, and their proxies.
func chooseServers(r *robust.Run, proxies []*robust.Proxy) (server int, affected []*robust.Proxy) {
	if r.Rand.IntN(4) == 0 {
		return robust.AllServers, proxies
	}
	i := r.Rand.IntN(len(proxies))
	return i, proxies[i : i+1]
}

func setConditions(proxies []*robust.Proxy, conditions robust.NetworkConditions) {
	for _, proxy := range proxies {
		proxy.SetConditions(conditions)
	}
}

// databaseConnectionsCut cuts connections to the database. Sometimes new connections fail
// for a short time too.
func databaseConnectionsCut(t *testing.T, r *robust.Run) {
	faultLoop(t, r, func(server int, affected []*robust.Proxy) {
		r.Fault("database connections cut", server, func() {
			setConditions(affected, robust.NetworkConditions{Refuse: r.Rand.IntN(3) == 0})
			for _, proxy := range affected {
				proxy.Cut()
			}
			r.Pause(between(r, 0, 300*time.Millisecond))
			setConditions(affected, robust.NetworkConditions{})
		})
	})
}

// commitAnswersLost loses the answer of COMMIT, which is a statement of its own, so that
// its outcome is unknown. A hold that it granted to a waiter may have ended before the
// server can read it.
func commitAnswersLost(t *testing.T, r *robust.Run) {
	faultLoop(t, r, func(server int, affected []*robust.Proxy) {
		r.Fault("answers of COMMIT lost", server, func() {
			setConditions(affected, robust.NetworkConditions{Only: "commit\x00", LoseAnswers: true})
			r.Pause(between(r, 0, 500*time.Millisecond))
			setConditions(affected, robust.NetworkConditions{})
		})
	})
}

// databaseDelayed delays what servers and the database send to each other. The servers
// keep their leases, so no waiter may be passed.
func databaseDelayed(t *testing.T, r *robust.Run) {
	faultLoop(t, r, func(_ int, affected []*robust.Proxy) {
		r.Fault("database delayed", robust.NoServer, func() {
			setConditions(affected, robust.NetworkConditions{Delay: between(r, time.Millisecond, 100*time.Millisecond)})
			r.Pause(between(r, 0, 2*time.Second))
			setConditions(affected, robust.NetworkConditions{})
		})
	})
}

// listenCut ends the connections on which servers listen at the first notification, and
// new ones at their start. The recheck still grants the waiters, in their order.
func listenCut(t *testing.T, r *robust.Run) {
	faultLoop(t, r, func(_ int, affected []*robust.Proxy) {
		r.Fault("notifications cut", robust.NoServer, func() {
			setConditions(affected, robust.NetworkConditions{Only: "LISTEN ", LoseAnswers: true})
			r.Pause(between(r, time.Second, 3*time.Second))
			setConditions(affected, robust.NetworkConditions{})
		})
	})
}

// faultLoop makes a fault between the database and random servers, again and again.
func faultLoop(t *testing.T, r *robust.Run, breaks func(server int, affected []*robust.Proxy)) {
	t.Helper()
	servers, proxies := behindProxies(t, r, testdb.Postgres(t))
	r.Work(robust.Workload{}, servers...)
	for r.Running() {
		r.Pause(between(r, 0, 500*time.Millisecond))
		breaks(chooseServers(r, proxies))
	}
	r.Judge()
}

// poolExhausted has another program take all of the database's connections, and ends
// those of the servers. The servers answer 503, and recover when connections are free
// again.
func poolExhausted(t *testing.T, r *robust.Run) {
	const connections = 45 // enough for three servers
	cluster := newCluster(t,
		"-c", fmt.Sprint("max_connections=", connections), "-c", "superuser_reserved_connections=0")
	servers := r.Servers(3, cluster.URL("postgres"))
	r.Work(robust.Workload{}, servers...)
	db := open(t, "pgx", cluster.URL("postgres"))
	db.SetMaxOpenConns(1) // the pool keeps it
	must(t, db.Ping())
	for round := 0; r.Running(); round++ {
		r.Pause(between(r, 0, time.Second))
		r.Fault("no connections left", robust.AllServers, func() {
			hog := open(t, "pgx", cluster.URL("postgres"))
			var taken []*sql.Conn
			apptest.Eventually(t, "the servers have no connection", func() bool {
				_, err := db.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE application_name LIKE 'lockd%'`)
				must(t, err)
				for {
					conn, err := hog.Conn(t.Context())
					if err != nil {
						return 1+len(taken) == connections
					}
					taken = append(taken, conn)
				}
			})
			for i, server := range servers {
				o := r.Client(i, server.URL).Acquire(t.Context(), robust.Operation{
					Resource: fmt.Sprintf("without a connection, round %d", round), Process: "nobody",
				})
				if o.Outcome != robust.Failed || o.Code != wire.CodeUnavailable {
					t.Errorf("without a connection: %+v", o)
				}
			}
			r.Pause(between(r, 0, 2*time.Second))
			for _, conn := range taken {
				must(t, conn.Close())
			}
			must(t, hog.Close())
			awaitLeases(t, db, len(servers))
		})
	}
	r.Judge()
}
