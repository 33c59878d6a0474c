package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"time"

	"resource-lock-manager/internal/wire"
)

const (
	attemptTimeout = 10 * time.Second // of one attempt, in addition to its wait
	minPause       = 100 * time.Millisecond
	maxPause       = 2 * time.Second // shorter than the time for which a server keeps a place in the queue
	maxRetryAfter  = 30 * time.Second
	maxAnswer      = 16 << 20 // bytes; a page of a list is smaller
)

// request is an HTTP request. Each attempt sends the same.
type request struct {
	method  string
	path    string
	query   url.Values
	body    any           // nil: none
	wait    time.Duration // how long the server may keep the request in its queue
	timeout time.Duration // of one attempt; 0: wait + answerTime
	onSent  func()        // called when a part of the request may have been sent; nil: ignored
}

// answer is a response with the status 200.
type answer struct {
	started time.Duration // when its attempt began, by the client's clock
	body    []byte
}

// data decodes the data of an answer.
func data[T any](a answer) (T, error) {
	var envelope wire.Success[T]
	if err := json.Unmarshal(a.body, &envelope); err != nil || !envelope.Success {
		detail := "not an answer of the lock service: " + excerpt(a.body)
		return envelope.Data, &APIError{Status: http.StatusOK, Detail: detail}
	}
	return envelope.Data, nil
}

// call retries a request until it gets a final answer. An answer that the service cannot
// serve requests now is not final. The request must be idempotent.
func (c *Client) call(ctx context.Context, r request) (answer, error) {
	return c.retry(ctx, r, c.retries(r.path))
}

func (c *Client) retry(ctx context.Context, r request, retries *retries) (answer, error) {
	for {
		a, err := retries.attempt(ctx, r)
		if err == nil {
			return a, nil
		}
		if err := retries.after(ctx, err); err != nil {
			return answer{}, err
		}
	}
}

// retries paces the attempts of one call.
type retries struct {
	c         *Client
	operation string
	silent    bool          // the Observer is not notified
	once      bool          // do not retry a request that may have been executed
	failures  int           // the number of failed attempts since the last answer
	since     time.Duration // the time since which no server answers
	began     time.Duration // the start of the last attempt
	wait      time.Duration // of the last attempt

	mayBeExecuted bool // a failed attempt may have been executed
}

func (c *Client) retries(path string) *retries {
	return &retries{c: c, operation: path[strings.LastIndexByte(path, '/')+1:]}
}

// reset records that a server has answered.
func (r *retries) reset() { r.failures = 0 }

// attempt makes one attempt.
func (r *retries) attempt(ctx context.Context, one request) (answer, error) {
	return r.c.attempt(ctx, r.begin(one))
}

// begin records the start of an attempt and limits it to the remaining time of
// ServerTimeout.
func (r *retries) begin(one request) request {
	r.began, r.wait = r.c.now(), one.wait
	one.timeout = one.wait + r.c.answerTime()
	if r.c.serverTimeout > 0 && r.failures > 0 {
		left := r.since + r.c.serverTimeout - r.began
		one.timeout = one.wait + min(r.c.answerTime(), max(left, minPause))
	}
	return one
}

// after decides what to do after an attempt failed with err. It returns nil when the next
// attempt is due. Otherwise it returns the error of the whole call. With several servers
// it pauses only after every server has been tried.
func (r *retries) after(ctx context.Context, err error) error {
	r.mayBeExecuted = r.mayBeExecuted || mayBeExecuted(err)
	if ctx.Err() != nil {
		return ended(ctx, err)
	}
	if !errors.Is(err, ErrUnavailable) || r.once && r.mayBeExecuted {
		return err
	}
	now := r.c.now()
	if r.failures == 0 { // assume that the server was up while the request waited in its queue
		r.since = min(now, r.began+r.wait)
		if silent, is := errors.AsType[*transportError](err); is && silent.unsent {
			r.since = r.began
		}
	}
	if r.c.serverTimeout > 0 && now-r.since >= r.c.serverTimeout {
		return err
	}
	r.failures++
	if !r.silent {
		r.c.observeRetry(r.operation, err, r.failures)
	}
	if r.failures%len(r.c.urls) != 0 {
		return nil
	}
	bound := maxPause
	if round := r.failures / len(r.c.urls); round < 16 {
		bound = min(maxPause, minPause<<(round-1))
	}
	pause := time.Duration(r.c.jitter() * float64(bound))
	if api, is := errors.AsType[*APIError](err); is { // the random pause spreads the clients
		pause += min(api.retry, maxRetryAfter)
	}
	timedOut := false
	if left := r.since + r.c.serverTimeout - now; r.c.serverTimeout > 0 && pause >= left {
		pause, timedOut = left, true
	}
	if sleep(ctx, pause) != nil {
		return ended(ctx, err)
	}
	if timedOut {
		return err
	}
	return nil
}

// answerTime returns the timeout of a request that does not wait in a queue. It leaves
// time to try each server within ServerTimeout.
func (c *Client) answerTime() time.Duration {
	if c.serverTimeout > 0 {
		return min(attemptTimeout, max(c.serverTimeout/time.Duration(len(c.urls)), time.Millisecond))
	}
	return attemptTimeout
}

// ended returns the error of a call whose context has ended. It wraps the cause of ctx
// and the last error.
func ended(ctx context.Context, last error) error {
	cause := causeOf(ctx)
	failed, is := errors.AsType[*transportError](last)
	switch {
	case is && errors.Is(last, context.DeadlineExceeded): // no answer before the deadline
		last = &transportError{server: failed.server, cause: errNoAnswer}
	case last == nil || errors.Is(last, cause) || errors.Is(last, context.Canceled):
		return cause
	}
	return fmt.Errorf("%w; before that: %w", cause, last)
}

var errNoAnswer = errors.New("no answer")

// causeOf returns why a context has ended: its error, and its cause if that is another
// error.
func causeOf(ctx context.Context) error {
	cause := context.Cause(ctx)
	//nolint:errorlint // extendContext makes the error of the original context the cause
	if errors.Is(cause, ctx.Err()) || cause == context.DeadlineExceeded {
		return cause
	}
	return fmt.Errorf("%w: %w", ctx.Err(), cause)
}

// attempt sends a request once, to the current server. If that server does not answer,
// the next server becomes the current one.
func (c *Client) attempt(ctx context.Context, r request) (answer, error) {
	timeout := r.timeout
	if timeout == 0 {
		timeout = r.wait + c.answerTime()
	}
	timed, cancel := withTimeout(ctx, timeout)
	defer cancel()
	server := c.server()
	err := c.probe(timed, server, r)
	if err == nil {
		var a answer
		if a, err = c.exchange(timed, server, r); err == nil {
			return a, nil
		}
	}
	if (errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOtherDatabase)) && ctx.Err() == nil {
		c.skip(server)
	}
	return answer{}, err
}

// withTimeout is like context.WithTimeout. The cause of the timeout states its length.
func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	cause := fmt.Errorf("no answer within %v", timeout.Round(time.Millisecond))
	return context.WithTimeoutCause(ctx, timeout, cause)
}

func (c *Client) server() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// skip makes the next server the current one, unless another goroutine has done so.
func (c *Client) skip(server int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == server {
		c.current = (server + 1) % len(c.urls)
	}
}

// probe checks with a GET /livez that a server answers and has the right database. It
// does so before the first request to a server other than the first one, so that no
// request changes another database. It also does so before a request that may wait, if
// the server has not answered recently: a dead server and a wait look the same to the
// client.
func (c *Client) probe(ctx context.Context, server int, r request) error {
	c.mu.Lock()
	verified := c.verified[server] || c.database == "" // the first answer decides the database
	answeredAt := c.answeredAt[server]
	c.mu.Unlock()
	if verified && (r.wait == 0 || answeredAt != 0 && c.now()-answeredAt < attemptTimeout) {
		return nil
	}
	timed, cancel := withTimeout(ctx, c.answerTime())
	defer cancel()
	_, err := c.exchange(timed, server, request{method: http.MethodGet, path: "/livez"})
	if silent, is := errors.AsType[*transportError](err); is {
		silent.unsent = true
	}
	return err
}

// checkDatabase compares a server's database with that of the first answer.
func (c *Client) checkDatabase(server int, id string) error {
	if id == "" { // an answer of a proxy, or of an old server without the header
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.database {
	case "":
		c.database = id
	case id:
	default:
		return fmt.Errorf("%w: %s has %s, the first server had %s",
			ErrOtherDatabase, c.urls[server].Redacted(), id, c.database)
	}
	c.verified[server] = true
	return nil
}

// exchange sends a request once and returns the answer if it has the status 200. For
// other answers it returns an [APIError] or a [HeldError], and a [transportError] if
// there is no complete answer.
func (c *Client) exchange(ctx context.Context, server int, r request) (answer, error) {
	base := c.urls[server]
	target := *base
	target.Path += r.path
	target.RawQuery = r.query.Encode()
	var content []byte
	if r.body != nil {
		var err error
		if content, err = json.Marshal(r.body); err != nil {
			return answer{}, fmt.Errorf("lock client: %w", err)
		}
	}
	if r.onSent != nil {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: r.onSent})
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target.String(), bytes.NewReader(content))
	if err != nil {
		return answer{}, fmt.Errorf("lock client: %w", err)
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	a := answer{started: c.now()}
	res, err := c.http.Do(req)
	if err != nil {
		return answer{}, newTransportError(ctx, base, err)
	}
	defer res.Body.Close()
	if a.body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer)); err != nil {
		return answer{}, newTransportError(ctx, base, fmt.Errorf("the answer was cut off: %w", err))
	}
	c.mu.Lock()
	c.answeredAt[server] = c.now()
	c.mu.Unlock()
	if err := c.checkDatabase(server, res.Header.Get(wire.DatabaseHeader)); err != nil {
		return answer{}, err
	}
	if res.StatusCode != http.StatusOK {
		return answer{}, failure(res, a.body)
	}
	return a, nil
}

// failure returns the error for an answer whose status is not 200.
func failure(res *http.Response, body []byte) error {
	var f struct {
		Detail            json.RawMessage `json:"detail"`
		Code              wire.Code       `json:"code"`
		RequestID         string          `json:"request_id"`
		Holder            *Hold           `json:"holder"`
		Waiters           int             `json:"waiters"`
		RetryAfterSeconds float64         `json:"retry_after_seconds"`
	}
	api := &APIError{Status: res.StatusCode, RequestID: res.Header.Get("X-Request-Id")}
	if seconds, err := strconv.ParseUint(res.Header.Get("Retry-After"), 10, 31); err == nil {
		api.retry = time.Duration(seconds) * time.Second
	}
	if err := json.Unmarshal(body, &f); err != nil || f.Code == "" {
		api.Detail = excerpt(body)
		return api
	}
	api.Code = string(f.Code)
	if f.RequestID != "" {
		api.RequestID = f.RequestID
	}
	switch res.StatusCode {
	case http.StatusConflict:
		return &HeldError{
			Code: string(f.Code), Holder: f.Holder, Waiters: f.Waiters,
			RetryAfter: duration(f.RetryAfterSeconds), cause: api,
		}
	case http.StatusUnprocessableEntity:
		api.setFaults(f.Detail)
	default:
		_ = json.Unmarshal(f.Detail, &api.Detail) // stays empty if it is not a string
	}
	return api
}

// setFaults sets Detail and Fields from the faults of the status 422.
func (e *APIError) setFaults(detail []byte) {
	var faults []wire.Fault
	if json.Unmarshal(detail, &faults) != nil {
		e.Detail = excerpt(detail)
		return
	}
	var texts []string
	for _, f := range faults {
		field := ""
		if len(f.Loc) > 1 { // the first element is "body" or "query"
			field = fmt.Sprint(f.Loc[1])
			e.Fields = append(e.Fields, field)
		}
		texts = append(texts, strings.TrimPrefix(field+": "+f.Msg, ": "))
	}
	e.Detail = strings.Join(texts, "; ")
}

// excerpt returns the beginning of an answer that cannot be parsed.
func excerpt(body []byte) string {
	const maxRunes = 200
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(body), "�")), " ")
	if r := []rune(text); len(r) > maxRunes {
		text = string(r[:maxRunes]) + "…"
	}
	return text
}

func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second))
}
