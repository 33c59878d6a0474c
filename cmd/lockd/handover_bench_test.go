package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/testdb"
)

// BenchmarkHandover has N workers take turns at one lock. Each waits for the lock,
// releases it at once and waits again. One operation is one hand-over. It reports:
//
//	handovers/s  hand-overs a second
//	p50-ms, p99-ms  from the sending of a release to the next holder's answer
//	commit-p50-ms, commit-p99-ms  a release without waiters, measured right before
//	spread-%  the most grants of a worker less the fewest, relative to the mean
func BenchmarkHandover(b *testing.B) {
	setups := []struct {
		name    string
		servers int
		url     func(b *testing.B) string
	}{
		{"sqlite", 1, func(b *testing.B) string { return sqliteURL(testdb.SQLite(b)) }},
		{"postgres", 1, durablePostgres},
		{"postgres-2-servers", 2, durablePostgres},
	}
	for _, setup := range setups {
		b.Run(setup.name, func(b *testing.B) {
			for _, workers := range []int{2, 16, 256} {
				b.Run(fmt.Sprint(workers), func(b *testing.B) {
					url := setup.url(b)
					addresses := make([]string, setup.servers)
					for i := range addresses {
						addresses[i], _ = startQuiet(b, url)
					}
					benchHandover(b, addresses, workers)
				})
			}
		})
	}
}

// durablePostgres starts a Postgres server that syncs to disk.
func durablePostgres(b *testing.B) string {
	cluster, err := testdb.NewCluster(testdb.Durable...)
	must(b, err)
	b.Cleanup(func() { must(b, cluster.Close()) })
	return cluster.URL("postgres")
}

// startQuiet starts a server that does not log its requests. It returns the server's
// address too.
func startQuiet(b *testing.B, databaseURL string) (string, *apptest.Process) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := free.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	if err := free.Close(); err != nil {
		b.Fatal(err)
	}
	p := launch(b, b.TempDir(), []string{"DATABASE_URL=" + databaseURL, "PORT=" + port, "LOG_LEVEL=warn"})
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-p.Exited:
			b.Fatal("lockd ended instead of listening")
		case <-ticker.C:
		}
		if conn, err := net.Dial("tcp", address); err == nil {
			_ = conn.Close()
			b.Cleanup(func() { p.Kill(b) }) // its log does not show that it stopped in order
			return address, p
		}
	}
}

func benchHandover(b *testing.B, addresses []string, workers int) {
	commits := measureCommits(b, addresses[0])
	var (
		all      sync.WaitGroup
		done     atomic.Bool
		released atomic.Int64 // when the last release was sent, in nanoseconds since begun
		total    atomic.Int64
		mu       sync.Mutex
		took     []time.Duration
		grants   = make([]int, workers)
		begun    = time.Now()
	)
	clients := make([]*rawClient, workers)
	for i := range clients {
		clients[i] = dialRaw(b, addresses[i%len(addresses)])
	}
	b.ResetTimer()
	for i, c := range clients {
		all.Go(func() {
			request := rawRequest("POST", "/locks/request", fmt.Sprintf(
				`{"resource_name":"bench","process_id":"worker-%d","ttl_seconds":60,"wait_seconds":60}`, i))
			release := rawRequest("DELETE",
				fmt.Sprintf("/locks/release?resource_name=bench&process_id=worker-%d", i), "")
			for !done.Load() {
				if err := c.do(request); err != nil {
					b.Error(err)
					done.Store(true)
					return
				}
				now := time.Since(begun)
				if before := released.Load(); before != 0 {
					mu.Lock()
					took = append(took, now-time.Duration(before))
					mu.Unlock()
				}
				grants[i]++
				if total.Add(1) >= int64(b.N) {
					done.Store(true)
				}
				released.Store(int64(time.Since(begun)))
				if err := c.do(release); err != nil {
					b.Error(err)
					done.Store(true)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64(total.Load())/b.Elapsed().Seconds(), "handovers/s")
	b.ReportMetric(milliseconds(took, 0.5), "p50-ms")
	b.ReportMetric(milliseconds(took, 0.99), "p99-ms")
	b.ReportMetric(milliseconds(commits, 0.5), "commit-p50-ms")
	b.ReportMetric(milliseconds(commits, 0.99), "commit-p99-ms")
	b.ReportMetric(100*float64((slices.Max(grants)-slices.Min(grants))*workers)/float64(total.Load()), "spread-%")
}

// measureCommits measures releases of a lock without waiters.
func measureCommits(b *testing.B, address string) (took []time.Duration) {
	c := dialRaw(b, address)
	acquire := rawRequest("POST", "/locks/request", `{"resource_name":"alone","process_id":"p","ttl_seconds":60}`)
	release := rawRequest("DELETE", "/locks/release?resource_name=alone&process_id=p", "")
	for range 500 {
		if err := c.do(acquire); err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		if err := c.do(release); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	return took
}

func milliseconds(took []time.Duration, quantile float64) float64 {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[int(quantile*float64(len(took)-1))].Seconds() * 1000
}

// rawClient is one connection. It uses as little CPU as possible, because it shares the
// machine with the server.
type rawClient struct {
	conn   net.Conn
	reader *bufio.Reader
}

func dialRaw(b *testing.B, address string) *rawClient {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return &rawClient{conn: conn, reader: bufio.NewReader(conn)}
}

func rawRequest(method, path, body string) []byte {
	return fmt.Appendf(nil,
		"%s %s HTTP/1.1\r\nHost: lockd\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, path, len(body), body)
}

// do sends a request and returns an error unless the status is 200.
func (c *rawClient) do(request []byte) error {
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	return c.answered()
}

// answered reads the answer of the last request.
func (c *rawClient) answered() error {
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", response.StatusCode, body)
	}
	return err
}

// BenchmarkCrowd has 10,000 requests wait on one server, for one resource or for as many,
// and then grants each of them. Run it with -benchtime 1x. It reports:
//
//	queued/s  requests queued a second
//	handovers/s, p50-ms, p99-ms  from the sending of a release to the next holder's answer
//	idle-cpu-%  of one core, while all of them wait
//	memory-MB  resident, while all of them wait
func BenchmarkCrowd(b *testing.B) {
	const crowd = 10_000
	for _, resources := range []int{1, crowd} {
		b.Run(fmt.Sprint("resources=", resources), func(b *testing.B) {
			for _, driver := range []string{"sqlite", "postgres"} {
				b.Run(driver, func(b *testing.B) {
					for range b.N {
						url := sqliteURL(testdb.SQLite(b))
						if driver == "postgres" {
							url = durablePostgres(b)
						}
						benchCrowd(b, url, crowd, resources)
					}
				})
			}
		})
	}
}

func benchCrowd(b *testing.B, url string, crowd, resources int) {
	address, p := startQuiet(b, url)
	name := func(i int) string { return fmt.Sprint("r", i%resources) }
	asked := func(i int, process string) []byte {
		return rawRequest("POST", "/locks/request",
			fmt.Sprintf(`{"resource_name":%q,"process_id":%q,"wait_seconds":300}`, name(i), process))
	}
	release := func(i int, process string) []byte {
		return rawRequest("DELETE", "/locks/release?resource_name="+name(i)+"&process_id="+process, "")
	}
	holder := dialRaw(b, address)
	for i := range resources {
		must(b, holder.do(asked(i, "first")))
	}
	waiters := make([]*rawClient, crowd)
	begun := time.Now()
	status := newClient(b, "http://"+address)
	for i := range waiters {
		waiters[i] = dialRaw(b, address)
		_, err := waiters[i].conn.Write(asked(i, fmt.Sprint("p", i)))
		must(b, err)
		if wait := i + 1 - 1000; wait >= 0 && i%100 == 99 { // no more at once than the server accepts
			apptest.Eventually(b, "most requests wait", func() bool {
				return status.status(b, name(wait)).Data["waiters"].(float64) > float64(wait/resources)
			})
		}
	}
	for i := range resources {
		apptest.Eventually(b, "all requests wait",
			func() bool { return status.status(b, name(i)).Data["waiters"] == float64(crowd/resources) })
	}
	b.ReportMetric(float64(crowd)/time.Since(begun).Seconds(), "queued/s")

	before, idle := p.CPU(b), 3*time.Second
	<-time.After(idle)
	b.ReportMetric(100*(p.CPU(b)-before).Seconds()/idle.Seconds(), "idle-cpu-%")
	b.ReportMetric(float64(p.Memory(b).Resident)/1e6, "memory-MB")

	took := make([]time.Duration, crowd)
	begun = time.Now()
	if resources == 1 { // each holder releases the lock
		var released time.Time
		var all sync.WaitGroup
		for i, waiter := range waiters {
			all.Go(func() {
				err := waiter.answered()
				took[i] = time.Since(released)
				released = time.Now() // no other waiter is answered before this release
				if err = errors.Join(err, waiter.do(release(i, fmt.Sprint("p", i)))); err != nil {
					b.Error(err)
				}
			})
		}
		released = time.Now()
		must(b, holder.do(release(0, "first")))
		all.Wait()
	} else { // one after another
		for i, waiter := range waiters {
			released := time.Now()
			must(b, holder.do(release(i, "first")))
			must(b, waiter.answered())
			took[i] = time.Since(released)
		}
	}
	b.ReportMetric(float64(crowd)/time.Since(begun).Seconds(), "handovers/s")
	b.ReportMetric(milliseconds(took, 0.5), "p50-ms")
	b.ReportMetric(milliseconds(took, 0.99), "p99-ms")
}
