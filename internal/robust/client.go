package robust

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"resource-lock-manager/internal/wire"
)

// Client makes one call at a time to one server and records it. Its methods end the call
// when their context ends, and return what they recorded.
type Client struct {
	history *History
	id      int
	server  int
	url     string
	direct  bool // it does not use a proxy
	http    *http.Client
}

// NewClient returns a client with connections of its own. No other client of the history
// may have the same id.
func NewClient(history *History, id, server int, url string) *Client {
	return &Client{history: history, id: id, server: server, url: url, http: &http.Client{Transport: &http.Transport{}}}
}

func (c *Client) Close() { c.http.CloseIdleConnections() }

// Acquire takes Resource, Process, RequestID, TTL and Wait from its argument.
func (c *Client) Acquire(ctx context.Context, o Operation) Operation {
	o.Kind = Acquire
	return c.call(ctx, o, http.MethodPost, "/locks/request", acquireBody(o), readGrant)
}

func readGrant(o *Operation, answer []byte) error {
	var granted wire.Success[wire.Acquired]
	err := json.Unmarshal(answer, &granted)
	o.Holder = holdOf(granted.Data.ProcessID, granted.Data.FencingToken, granted.Data.Times)
	o.At = decidedAt(granted.Data.Times)
	o.Waited = time.Duration(granted.Data.WaitedSeconds * float64(time.Second)).Round(time.Microsecond)
	return err
}

func acquireBody(o Operation) wire.AcquireRequest {
	body := wire.AcquireRequest{ResourceName: o.Resource, ProcessID: o.Process}
	if o.RequestID != "" {
		body.RequestID = &o.RequestID
	}
	if o.TTL != 0 {
		body.TTLSeconds = seconds(o.TTL)
	}
	if o.Wait != 0 {
		body.WaitSeconds = seconds(o.Wait)
	}
	return body
}

// Release ends the hold with the token. Token 0 stands for any hold of the process.
func (c *Client) Release(ctx context.Context, resource, process string, token int64) Operation {
	query := url.Values{"resource_name": {resource}, "process_id": {process}}
	if token != 0 {
		query.Set("fencing_token", strconv.FormatInt(token, 10))
	}
	o := Operation{Kind: Release, Resource: resource, Process: process, Token: token}
	return c.call(ctx, o, http.MethodDelete, "/locks/release?"+query.Encode(), nil, readRelease)
}

func readRelease(o *Operation, answer []byte) error {
	var released wire.Success[wire.Released]
	err := json.Unmarshal(answer, &released)
	o.At = time.Time(released.Data.ReleasedAt)
	return err
}

// Renew sets the end of the hold with the token to the time ttl from now.
func (c *Client) Renew(ctx context.Context, resource, process string, token int64, ttl time.Duration) Operation {
	o := Operation{Kind: Renew, Resource: resource, Process: process, Token: token, TTL: ttl}
	body := wire.RenewRequest{ResourceName: resource, ProcessID: process, TTLSeconds: seconds(ttl)}
	if token != 0 {
		body.FencingToken = &token
	}
	return c.call(ctx, o, http.MethodPost, "/locks/renew", body, readRenewal)
}

func readRenewal(o *Operation, answer []byte) error {
	var renewed wire.Success[wire.Renewed]
	err := json.Unmarshal(answer, &renewed)
	o.Holder = holdOf(renewed.Data.ProcessID, renewed.Data.FencingToken, renewed.Data.Times)
	o.At = decidedAt(renewed.Data.Times)
	return err
}

// Status reads the holder of a resource.
func (c *Client) Status(ctx context.Context, resource string) Operation {
	o := Operation{Kind: Status, Resource: resource}
	path := "/locks/status?" + url.Values{"resource_name": {resource}}.Encode()
	return c.call(ctx, o, http.MethodGet, path, nil, func(o *Operation, answer []byte) error {
		var status wire.Success[wire.Status]
		if err := json.Unmarshal(answer, &status); err != nil || !status.Data.IsLocked {
			return err
		}
		times := wire.Times{
			LockedAt: *status.Data.LockedAt, ExpiresAt: status.Data.ExpiresAt,
			ExpiresInSeconds: status.Data.ExpiresInSeconds,
		}
		o.Holder = holdOf(*status.Data.LockedBy, *status.Data.FencingToken, times)
		o.At = decidedAt(times)
		return nil
	})
}

// Queue reads the first thousand waiters of a resource.
func (c *Client) Queue(ctx context.Context, resource string) Operation {
	o := Operation{Kind: Queue, Resource: resource}
	path := "/locks/queue?" + url.Values{"resource_name": {resource}, "limit": {"1000"}}.Encode()
	return c.call(ctx, o, http.MethodGet, path, nil, func(o *Operation, answer []byte) error {
		var queue wire.Success[wire.Queue]
		err := json.Unmarshal(answer, &queue)
		for _, waiter := range queue.Data.Waiters {
			o.Queue = append(o.Queue, waiter.ProcessID)
		}
		return err
	})
}

// call sends a request. It calls done with the answer if the status is 200.
func (c *Client) call(ctx context.Context, o Operation, method, path string, body any,
	done func(*Operation, []byte) error,
) Operation {
	return c.record(ctx, o, done,
		func() (int, []byte, error) { return c.exchange(ctx, o.HalfClosed, method, path, body) })
}

// record calls send, and records the operation with what its answer states.
func (c *Client) record(ctx context.Context, o Operation, done func(*Operation, []byte) error,
	send func() (int, []byte, error),
) Operation {
	o.Client, o.Server, o.Direct, o.Outcome = c.id, c.server, c.direct, Unknown
	o.Called = c.history.Elapsed()
	status, answer, err := send()
	o.Returned = c.history.Elapsed()
	o.Disconnected = err != nil && ctx.Err() != nil
	var dial *net.OpError
	switch {
	case errors.As(err, &dial) && dial.Op == "dial":
		o.Outcome = Failed // nothing was sent
	case err != nil:
	case status == http.StatusOK:
		if done(&o, answer) == nil {
			o.Outcome = Done
		}
	default:
		refused(&o, status, answer)
	}
	c.history.Add(o)
	return o
}

// exchange sends a request and returns the whole answer.
func (c *Client) exchange(
	ctx context.Context, halfClosed bool, method, path string, body any,
) (status int, answer []byte, err error) {
	request, err := newRequest(ctx, method, c.url+path, body)
	if err != nil {
		return 0, nil, err
	}
	send := c.http.Do
	if halfClosed {
		send = c.halfClosed
	}
	response, err := send(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

func newRequest(ctx context.Context, method, url string, body any) (*http.Request, error) {
	var content io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	return request, nil
}

// refused reads an answer with another status than 200.
func refused(o *Operation, status int, answer []byte) {
	var conflict wire.Conflict // a failure without a holder has the same fields
	if err := json.Unmarshal(answer, &conflict); err != nil {
		return // not an answer of lockd but, for example, a page of the balancer: the outcome is unknown
	}
	o.Code = conflict.Code
	switch {
	case conflict.Code == "", conflict.Code == wire.CodeOutcomeUnknown, conflict.Code == wire.CodeInternal:
		return
	case status == http.StatusNotFound, status == http.StatusConflict:
		o.Outcome = Refused
	default:
		o.Outcome = Failed
	}
	if conflict.Holder != nil {
		o.Holder = holdOf(conflict.Holder.ProcessID, conflict.Holder.FencingToken, conflict.Holder.Times)
		o.At = decidedAt(conflict.Holder.Times)
	}
}

func holdOf(process string, token int64, times wire.Times) Hold {
	h := Hold{Process: process, Token: token, LockedAt: time.Time(times.LockedAt)}
	if times.ExpiresAt != nil {
		h.ExpiresAt = time.Time(*times.ExpiresAt)
	}
	return h
}

// decidedAt returns when an answer was decided: the end of the hold minus its remaining
// time. It returns the zero time for a hold that does not expire.
func decidedAt(times wire.Times) time.Time {
	if times.ExpiresAt == nil || times.ExpiresInSeconds == nil {
		return time.Time{}
	}
	left := time.Duration(*times.ExpiresInSeconds * float64(time.Second)).Round(time.Microsecond)
	return time.Time(*times.ExpiresAt).Add(-left)
}

func seconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}
