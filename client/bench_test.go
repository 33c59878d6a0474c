package client_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"resource-lock-manager/client"
	"resource-lock-manager/internal/testdb"
)

// BenchmarkLockUnlock measures Lock and Unlock of the client, alternating with the same
// two requests without the client. It reports both medians and their ratio.
func BenchmarkLockUnlock(b *testing.B) {
	server, err := startServer("sqlite:///" + testdb.SQLite(b))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = server.Stop() }()
	base := "http://" + server.Address()
	c, err := client.New(base, client.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.CloseIdleConnections()
	bare := http.Client{Transport: &http.Transport{}}
	defer bare.CloseIdleConnections()
	var through, without []time.Duration
	for n := 0; b.Loop(); n++ {
		began := time.Now()
		l, err := c.Lock(b.Context(), "through", client.LockOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Unlock(b.Context()); err != nil {
			b.Fatal(err)
		}
		through = append(through, time.Since(began))

		began = time.Now()
		var granted struct {
			Data struct {
				Token int64 `json:"fencing_token"`
			} `json:"data"`
		}
		post(b, &bare, base+"/locks/request", fmt.Sprintf(`{"resource_name":"without","process_id":"p",
			"request_id":"%d","ttl_seconds":60,"wait_seconds":50}`, n), &granted)
		post(b, &bare, base+"/locks/release", fmt.Sprintf(`{"resource_name":"without","process_id":"p",
			"fencing_token":%d}`, granted.Data.Token), nil)
		without = append(without, time.Since(began))
	}
	p50 := func(list []time.Duration) float64 {
		slices.Sort(list)
		return float64(list[len(list)/2].Microseconds())
	}
	b.ReportMetric(p50(through), "p50-us/client")
	b.ReportMetric(p50(without), "p50-us/bare")
	b.ReportMetric(p50(through)/p50(without), "ratio")
}

// post sends a request like a program that does not use the package.
func post(b *testing.B, c *http.Client, url, body string, to any) {
	b.Helper()
	res, err := c.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		b.Fatal(err, res.Status, string(answer))
	}
	if to != nil {
		if err := json.NewDecoder(bytes.NewReader(answer)).Decode(to); err != nil {
			b.Fatal(err)
		}
	}
}
