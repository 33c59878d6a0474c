package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"resource-lock-manager/internal/wire"
)

const (
	attemptTimeout = 10 * time.Second // of an attempt, beyond what it asks to wait
	minPause       = 100 * time.Millisecond
	maxPause       = 2 * time.Second // shorter than a server keeps the place of a request in the queue
	maxRetryAfter  = 30 * time.Second
	maxAnswer      = 16 << 20 // bytes; a page of a list is smaller
)

// request is what is sent, the same at each attempt.
type request struct {
	method  string
	path    string
	query   url.Values
	body    any           // nil: none
	wait    time.Duration // how long the server may hold it in its queue
	timeout time.Duration // of one attempt; 0: wait, and attemptTimeout or less for the answer
}

// answer is an answer with the status 200.
type answer struct {
	started time.Duration // when its attempt began, by the client's clock
	body    []byte
}

// data decodes the data of an answer.
func data[T any](a answer) (T, error) {
	var envelope wire.Success[T]
	if err := json.Unmarshal(a.body, &envelope); err != nil || !envelope.Success {
		return envelope.Data, &APIError{Status: http.StatusOK, Detail: "not an answer of the lock service: " + excerpt(a.body)}
	}
	return envelope.Data, nil
}

// call repeats a request until it is answered: an answer that says that the service
// cannot serve it now does not count as one. Only a request that is safe to repeat may be
// passed to it.
func (c *Client) call(ctx context.Context, r request) (answer, error) {
	return c.retry(ctx, r, c.retries(r.path))
}

func (c *Client) retry(ctx context.Context, r request, again *retries) (answer, error) {
	for {
		a, err := again.attempt(ctx, r)
		if err == nil {
			return a, nil
		}
		if err := again.after(ctx, err); err != nil {
			return answer{}, err
		}
	}
}

// retries paces the attempts of one call.
type retries struct {
	c         *Client
	operation string
	silent    bool          // the Observer is not told
	once      bool          // what may have been executed is not repeated
	n         int           // attempts that have failed since the last answer
	since     time.Duration // since when no server answers
	began     time.Duration // the last attempt
	wait      time.Duration // of the last attempt
	uncertain bool          // an attempt that has failed may have been executed
}

func (c *Client) retries(path string) *retries {
	return &retries{c: c, operation: path[strings.LastIndexByte(path, '/')+1:]}
}

// reset notes that a server has answered.
func (r *retries) reset() { r.n = 0 }

// attempt makes one attempt, of what is left of ServerTimeout at most.
func (r *retries) attempt(ctx context.Context, one request) (answer, error) {
	r.began, r.wait = r.c.now(), one.wait
	one.timeout = one.wait + r.c.answerTime()
	if r.c.patience > 0 && r.n > 0 {
		one.timeout = one.wait + min(r.c.answerTime(), max(r.since+r.c.patience-r.began, minPause))
	}
	return r.c.attempt(ctx, one)
}

// after returns nil when it is time for the next attempt, and otherwise the error to end
// the call with. With several servers the next one is asked without a pause, until each
// has been asked.
func (r *retries) after(ctx context.Context, err error) error {
	r.uncertain = r.uncertain || uncertain(err)
	if ctx.Err() != nil {
		return ended(ctx, err)
	}
	if !errors.Is(err, ErrUnavailable) || r.once && r.uncertain {
		return err
	}
	now := r.c.now()
	if r.n == 0 { // while it held the request in its queue, the server was there
		r.since = min(now, r.began+r.wait)
		if silent, is := errors.AsType[*transportError](err); is && silent.unsent {
			r.since = r.began
		}
	}
	if r.c.patience > 0 && now-r.since >= r.c.patience {
		return err
	}
	r.n++
	if !r.silent {
		r.c.observeRetry(r.operation, err, r.n)
	}
	if r.n%len(r.c.urls) != 0 {
		return nil
	}
	bound := maxPause
	if round := r.n / len(r.c.urls); round < 16 {
		bound = min(maxPause, minPause<<(round-1))
	}
	pause := time.Duration(r.c.jitter() * float64(bound))
	if api, is := errors.AsType[*APIError](err); is { // not all clients at the same time
		pause += min(api.retry, maxRetryAfter)
	}
	over := false
	if left := r.since + r.c.patience - now; r.c.patience > 0 && pause >= left {
		pause, over = left, true
	}
	if sleep(ctx, pause) != nil {
		return ended(ctx, err)
	}
	if over {
		return err
	}
	return nil
}

// answerTime is how long an answer may take that is due at once.
func (c *Client) answerTime() time.Duration {
	if c.patience > 0 { // each server is asked
		return min(attemptTimeout, max(c.patience/time.Duration(len(c.urls)), time.Millisecond))
	}
	return attemptTimeout
}

// ended is the error of a call whose context has ended: both are its causes.
func ended(ctx context.Context, last error) error {
	cause := causeOf(ctx)
	none, is := errors.AsType[*transportError](last)
	switch {
	case is && errors.Is(last, context.DeadlineExceeded): // no server has answered until then
		last = &transportError{server: none.server, cause: errNoAnswer}
	case last == nil || errors.Is(last, cause) || errors.Is(last, context.Canceled):
		return cause
	}
	return fmt.Errorf("%w; before that: %w", cause, last)
}

var errNoAnswer = errors.New("no answer")

// causeOf is why a context has ended: its error, and its cause if that is another one.
func causeOf(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, ctx.Err()) || cause == context.DeadlineExceeded { //nolint:errorlint // see past: it is the other context's error
		return cause
	}
	return fmt.Errorf("%w: %w", ctx.Err(), cause)
}

// attempt sends a request once, to the current server, and goes to the next server if
// that does not answer.
func (c *Client) attempt(ctx context.Context, r request) (answer, error) {
	timeout := r.timeout
	if timeout == 0 {
		timeout = r.wait + c.answerTime()
	}
	timed, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout.Round(time.Millisecond)))
	defer cancel()
	server := c.server()
	err := c.verify(timed, server, r)
	if err == nil {
		var a answer
		if a, err = c.exchange(timed, server, r); err == nil {
			return a, nil
		}
	}
	if (errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOtherDatabase)) && ctx.Err() == nil {
		c.leave(server)
	}
	return answer{}, err
}

func (c *Client) server() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// leave makes the next server the current one, unless another goroutine has done so.
func (c *Client) leave(server int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == server {
		c.current = (server + 1) % len(c.urls)
	}
}

// verify asks a server for a sign of life in two cases. One that has never answered is asked
// for its database, before it is asked to change anything in it; the first server needs no
// such question, because its database is the right one. And a request that may wait is not
// sent to a server that has not answered recently: nobody could tell its silence from a wait.
func (c *Client) verify(ctx context.Context, server int, r request) error {
	c.mu.Lock()
	known := c.verified[server] || c.database == ""
	heard := c.heard[server]
	c.mu.Unlock()
	if known && (r.wait == 0 || heard != 0 && c.now()-heard < attemptTimeout) {
		return nil
	}
	timed, cancel := context.WithTimeoutCause(ctx, c.answerTime(), fmt.Errorf("no answer within %v", c.answerTime().Round(time.Millisecond)))
	defer cancel()
	_, err := c.exchange(timed, server, request{method: http.MethodGet, path: "/livez"})
	if silent, is := errors.AsType[*transportError](err); is {
		silent.unsent = true
	}
	return err
}

// checkDatabase compares a server's database with that of the first answer.
func (c *Client) checkDatabase(server int, id string) error {
	if id == "" { // an answer of a proxy, or of a server of before the header
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.database {
	case "":
		c.database = id
	case id:
	default:
		return fmt.Errorf("%w: %s has %s, the first server had %s", ErrOtherDatabase, c.urls[server].Redacted(), id, c.database)
	}
	c.verified[server] = true
	return nil
}

// exchange sends a request once and returns the answer if it has the status 200. Other
// answers are an [APIError] or a [HeldError], or what ended before one came a
// [transportError].
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
	c.heard[server] = c.now()
	c.mu.Unlock()
	if err := c.checkDatabase(server, res.Header.Get(wire.DatabaseHeader)); err != nil {
		return answer{}, err
	}
	if res.StatusCode != http.StatusOK {
		return answer{}, failure(res, a.body)
	}
	return a, nil
}

// failure reads an answer that has not the status 200.
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
		return &HeldError{Code: string(f.Code), Holder: f.Holder, Waiters: f.Waiters, RetryAfter: duration(f.RetryAfterSeconds), cause: api}
	case http.StatusUnprocessableEntity:
		api.setFaults(f.Detail)
	default:
		_ = json.Unmarshal(f.Detail, &api.Detail) // left empty if it is no text
	}
	return api
}

// setFaults makes one text of the faults of the status 422.
func (e *APIError) setFaults(detail []byte) {
	var faults []wire.Fault
	if json.Unmarshal(detail, &faults) != nil {
		e.Detail = excerpt(detail)
		return
	}
	var texts []string
	for _, f := range faults {
		field := ""
		if len(f.Loc) > 1 { // the first says whether it is of the body or the query
			field = fmt.Sprint(f.Loc[1])
			e.Fields = append(e.Fields, field)
		}
		texts = append(texts, strings.TrimPrefix(field+": "+f.Msg, ": "))
	}
	e.Detail = strings.Join(texts, "; ")
}

// excerpt is the beginning of an answer that cannot be read.
func excerpt(body []byte) string {
	const most = 200
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(body), "�")), " ")
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	return text
}

func duration(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second))
}
