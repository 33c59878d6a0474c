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
	// credentials and tracing. A Timeout shorter than a minute splits long waits into
	// more requests. Redirects are not followed. If nil, the client uses a transport of
	// its own that detects a dead peer within half a minute.
	HTTPClient *http.Client

	// ServerTimeout limits how long a call is retried while no server answers it. Then
	// the call fails with [ErrUnavailable]. If 0, a call is retried until its context
	// ends. ServerTimeout does not limit a wait in the queue of a server. If the server
	// stops answering during such a wait, the client detects this when the wait of one
	// request ends, in less than a minute.
	ServerTimeout time.Duration

	// Logger logs the events of the Observer: losses as errors, failed attempts as
	// warnings, the others at the debug level. If nil, nothing is logged.
	Logger *slog.Logger

	// Observer is notified of events of the client's locks.
	Observer Observer
}

// Observer is a set of functions that are called on events of a lock. Each may be nil.
// The goroutine that renews or releases the lock calls them, so a slow function delays
// renewals. Several functions may run concurrently. They must not call methods of the
// lock other than Name, Owner, FencingToken and Deadline.
type Observer struct {
	Acquired    func(l *Lock, waited time.Duration) // waited is the time since the call of Lock or TryLock
	Renewed     func(l *Lock)                       // Deadline has changed
	RenewFailed func(l *Lock, err error)            // the renewal is retried until the lock is lost
	Lost        func(l *Lock, err *LostError)       // called after Done was closed
	Released    func(l *Lock, held time.Duration)   // the server has confirmed Unlock

	// Retried is called after the nth attempt of a call failed and before the next one.
	// It is not called for renewals.
	Retried func(operation string, err error, n int)
}

// Client is a client of one lock service, at one or several addresses. It is safe for
// concurrent use, and should be shared.
type Client struct {
	http          *http.Client
	log           *slog.Logger
	observer      Observer
	serverTimeout time.Duration // Options.ServerTimeout

	now    func() time.Duration // the boot-time clock
	jitter func() float64       // from 0 to 1, exclusive

	urls []*url.URL

	mu         sync.Mutex
	current    int             // the server that gets the next request
	database   string          // the ID of the database, from the first answer; empty before that
	verified   []bool          // by server: whether it has answered with that ID
	answeredAt []time.Duration // by server: the time of its last answer, by the client's clock; 0: none
}

// New returns a client for the service at a base URL such as "http://localhost:8000", or
// at several URLs, separated by commas. The client uses one server while it answers, and
// then the next. All servers must use the same database. New does not connect. It returns
// an error if a URL or an option is invalid.
func New(urls string, o Options) (*Client, error) {
	c := &Client{
		log: o.Logger, observer: o.Observer, serverTimeout: o.ServerTimeout,
		now: newClock(), jitter: rand.Float64,
	}
	if o.HTTPClient == nil {
		o.HTTPClient = &http.Client{Transport: newTransport()}
	}
	// A redirect may change a POST into a GET. The caller gets the status of the
	// redirect.
	copied := *o.HTTPClient
	copied.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &copied
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
	c.verified, c.answeredAt = make([]bool, len(c.urls)), make([]time.Duration, len(c.urls))
	return c, nil
}

// baseURL parses one URL. Its error does not quote a URL that may contain a password.
func baseURL(text string) (*url.URL, error) {
	shown := strconv.Quote(text)
	if strings.Contains(text, "@") {
		shown = "that with the @"
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		strings.HasSuffix(u.Host, ":"):
		return nil, fmt.Errorf("lock client: base URL %s: want http://HOST:PORT or https://HOST:PORT", shown)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("lock client: base URL %s: a query or fragment has no meaning in it", shown)
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// newTransport returns a transport like [http.DefaultTransport], but with more frequent
// keep-alive probes: the server of a waiting request sends nothing for up to a minute.
func newTransport() *http.Transport {
	dialer := &net.Dialer{
		Timeout: 5 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3,
		},
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		ForceAttemptHTTP2:   true,
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 64,
	}
}

// CloseIdleConnections closes the connections that no request uses. The client remains
// usable.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// sleep waits for d. It returns early with ctx.Err() if ctx ends before that.
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
