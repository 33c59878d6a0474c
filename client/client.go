package client

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options of a [Client]. The zero value is ready to use.
type Options struct {
	// HTTPClient sends the requests. Its Transport is the place for TLS settings,
	// credentials and tracing. A Timeout shorter than a minute cuts long waits into more
	// requests. Redirects are not followed. If nil, the client has a transport of its own
	// that notices a dead peer within half a minute.
	HTTPClient *http.Client

	// ServerTimeout is the longest time for which a call goes on although no server answers
	// it. Then it fails with [ErrUnavailable]. If 0, a call goes on until its context ends. It
	// does not limit a wait in the queue of a server: a server that falls silent meanwhile is
	// given up when the wait of one request is over, which is less than a minute.
	ServerTimeout time.Duration

	// Logger gets what the Observer gets: losses as errors, failed attempts as warnings,
	// the rest at the debug level. If nil, nothing is logged.
	Logger *slog.Logger

	// Observer is told what happens to the locks of the client.
	Observer Observer
}

// Observer is a set of functions that are called when something happens to a lock. Each
// may be nil. They are called by the goroutine that does the work, so a slow one delays
// renewals, and several may run at once. None may call a method of the lock other than
// Name, Owner, FencingToken and Deadline.
type Observer struct {
	Acquired    func(l *Lock, waited time.Duration)      // waited since Lock or TryLock was called
	Renewed     func(l *Lock)                            // Deadline has moved
	RenewFailed func(l *Lock, err error)                 // it is tried again while there is time
	Lost        func(l *Lock, err *LostError)            // right after Done was closed
	Released    func(l *Lock, held time.Duration)        // by Unlock; the server has confirmed it
	Retried     func(operation string, err error, n int) // the nth attempt of a call failed, and another follows; not of renewals
}

// Client speaks to one lock service, at one or several addresses. It is safe for
// concurrent use by any number of goroutines, and is meant to be shared.
type Client struct {
	http     *http.Client
	log      *slog.Logger
	observer Observer
	patience time.Duration // Options.ServerTimeout

	now    func() time.Duration // the boot-time clock
	jitter func() float64       // from 0 to 1, exclusive

	mu       sync.Mutex
	urls     []*url.URL
	current  int             // the server that is asked first
	database string          // the id of the database, as the first server told it; empty: not known yet
	verified []bool          // by server: it has answered with that id
	heard    []time.Duration // by server: when it has answered last, by the clock; 0: never
}

// New returns a client for the service at a base URL such as "http://localhost:8000", or
// at several, separated by commas. With several the client stays with one while it
// answers, and goes to the next when it does not. All must be servers of one database.
// New does not connect; its error names what is wrong with a URL.
func New(urls string, o Options) (*Client, error) {
	c := &Client{
		log: o.Logger, observer: o.Observer, patience: o.ServerTimeout,
		now: newClock(), jitter: rand.Float64,
	}
	if o.HTTPClient == nil {
		o.HTTPClient = &http.Client{Transport: newTransport()}
	}
	// A redirect would make a GET of a POST. Its own status says more than what follows.
	own := *o.HTTPClient
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &own
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if o.ServerTimeout < 0 {
		return nil, fmt.Errorf("lock client: ServerTimeout is %v, want 0 or more", o.ServerTimeout)
	}
	for _, text := range strings.Split(urls, ",") {
		u, err := baseURL(strings.TrimSpace(text))
		if err != nil {
			return nil, err
		}
		c.urls = append(c.urls, u)
	}
	c.verified, c.heard = make([]bool, len(c.urls)), make([]time.Duration, len(c.urls))
	return c, nil
}

// baseURL checks one URL. Its error quotes nothing of a URL that may hold a password.
func baseURL(text string) (*url.URL, error) {
	shown := strconv.Quote(text)
	if strings.Contains(text, "@") {
		shown = "that with the @"
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.HasSuffix(u.Host, ":"):
		return nil, fmt.Errorf("lock client: base URL %s: want http://HOST:PORT or https://HOST:PORT", shown)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("lock client: base URL %s: a query or fragment has no meaning in it", shown)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// newTransport is like net/http's own, but for shorter probes of idle connections: the
// peer of a request that waits sends nothing for a minute, and might be gone.
func newTransport() *http.Transport {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: 90 * time.Second}
	t.DialContext = (&net.Dialer{
		Timeout:         5 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
	}).DialContext
	t.MaxIdleConnsPerHost = 64
	return t
}

// CloseIdleConnections closes the connections that no request uses. The client remains
// usable.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// sleep waits, or returns the cause for which ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
