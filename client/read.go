package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"resource-lock-manager/internal/wire"
)

// pageSize is how many entries of a list one request asks for.
const pageSize = 1000

// raw is the JSON that a value was decoded from. The value is encoded as the same JSON,
// so that unknown fields are passed on.
type raw struct{ text json.RawMessage }

func newRaw(text []byte) raw { return raw{append(json.RawMessage(nil), text...)} }

// MarshalJSON returns the server's JSON.
func (r raw) MarshalJSON() ([]byte, error) {
	if r.text == nil {
		return []byte("null"), nil
	}
	return r.text, nil
}

// Hold is a lock that a client holds. It is encoded as the server's JSON.
type Hold struct {
	raw
	Resource     string
	Owner        string // the API's process_id
	FencingToken int64
	LockedAt     time.Time       // all times are by the server's clock
	ExpiresAt    time.Time       // zero: never
	ExpiresIn    time.Duration   // at the time of the answer; 0: never
	Reason       string          // empty: none
	Metadata     json.RawMessage // a JSON object; nil: none
	Renewals     int             // only from Status and Renew
	MinHoldUntil time.Time       // only from Status; zero: no minimum hold
	ReleasedAt   time.Time       // only from Status; not zero: released, but locked until ExpiresAt by its minimum hold
}

// String returns the resource, owner and token, for logs.
func (h Hold) String() string {
	return fmt.Sprintf("%s held by %s with token %d", h.Resource, h.Owner, h.FencingToken)
}

// UnmarshalJSON decodes each of the API's forms of a hold.
func (h *Hold) UnmarshalJSON(text []byte) error {
	var w struct {
		wire.Lock
		LockedBy     string     `json:"locked_by"`
		Renewals     int        `json:"renewals"`
		MinHoldUntil *wire.Time `json:"min_hold_until"`
		ReleasedAt   *wire.Time `json:"released_at"`
	}
	if err := json.Unmarshal(text, &w); err != nil {
		return err
	}
	*h = Hold{
		raw: newRaw(text), Resource: w.ResourceName, Owner: w.ProcessID + w.LockedBy,
		FencingToken: w.FencingToken, LockedAt: time.Time(w.LockedAt), ExpiresAt: timeOf(w.ExpiresAt),
		ExpiresIn: duration(orZero(w.ExpiresInSeconds)), Reason: orZero(w.Reason), Metadata: objectOf(w.Metadata),
		Renewals: w.Renewals, MinHoldUntil: timeOf(w.MinHoldUntil), ReleasedAt: timeOf(w.ReleasedAt),
	}
	return nil
}

// Status is the state of a resource. It is encoded as the server's JSON.
type Status struct {
	raw
	Resource string
	Holder   *Hold // nil: the resource is free
	Waiters  int   // the number of requests that wait for the resource
}

// String returns who holds the resource, for logs.
func (s Status) String() string {
	if s.Holder == nil {
		return s.Resource + " is free"
	}
	return s.Holder.String()
}

// UnmarshalJSON decodes the API's form.
func (s *Status) UnmarshalJSON(text []byte) error {
	var w wire.Status
	if err := json.Unmarshal(text, &w); err != nil {
		return err
	}
	*s = Status{raw: newRaw(text), Resource: w.ResourceName, Waiters: w.Waiters}
	if w.IsLocked {
		s.Holder = &Hold{}
		return s.Holder.UnmarshalJSON(text)
	}
	return nil
}

// Waiter is a request that waits for a resource. It is encoded as the server's JSON.
type Waiter struct {
	raw
	Position int // 1: the first
	Owner    string
	Since    time.Time
	Waited   time.Duration
	Reason   string
	Metadata json.RawMessage
}

// UnmarshalJSON decodes the API's form.
func (w *Waiter) UnmarshalJSON(text []byte) error {
	var from wire.Waiter
	if err := json.Unmarshal(text, &from); err != nil {
		return err
	}
	*w = Waiter{
		raw: newRaw(text), Position: from.Position, Owner: from.ProcessID, Since: time.Time(from.WaitingSince),
		Waited: duration(from.WaitedSeconds), Reason: orZero(from.Reason), Metadata: objectOf(from.Metadata),
	}
	return nil
}

// Event is an entry of the history. It is encoded as the server's JSON.
type Event struct {
	raw
	ID           int64
	Event        string // acquired, granted, released, force_released, expired, queued or gave_up
	At           time.Time
	Resource     string
	Owner        string        // of the hold or of the waiting request
	FencingToken int64         // 0: the event does not concern a hold
	Held         time.Duration // if the event ends a hold
	Waited       time.Duration // if the event ends a wait
	Renewals     int           // if the event ends a hold
	Reason       string        // of the request, the force-release or the end
	By           string        // who force-released the hold
	HoldReason   string        // if the event ends a hold: the reason of its request
}

// UnmarshalJSON decodes the API's form.
func (e *Event) UnmarshalJSON(text []byte) error {
	var w wire.Event
	if err := json.Unmarshal(text, &w); err != nil {
		return err
	}
	*e = Event{
		raw: newRaw(text), ID: w.ID, Event: w.Event, At: time.Time(w.At), Resource: w.ResourceName,
		Owner: w.ProcessID, FencingToken: orZero(w.FencingToken), Held: duration(orZero(w.HeldSeconds)),
		Waited: duration(orZero(w.WaitedSeconds)), Renewals: orZero(w.Renewals), Reason: orZero(w.Reason), By: orZero(w.By),
		HoldReason: orZero(w.HoldReason),
	}
	return nil
}

// objectOf returns nil for null.
func objectOf(metadata json.RawMessage) json.RawMessage {
	if string(metadata) == "null" {
		return nil
	}
	return metadata
}

func orZero[T any](p *T) (zero T) {
	if p == nil {
		return zero
	}
	return *p
}

func timeOf(t *wire.Time) time.Time { return time.Time(orZero(t)) }

// Status returns the state of a resource. Like every read, it is retried until a server
// answers, ctx ends, or no server has answered for [Options.ServerTimeout].
func (c *Client) Status(ctx context.Context, resource string) (Status, error) {
	return read[Status](ctx, c, "/locks/status", url.Values{"resource_name": {resource}})
}

// Validate reports whether token is the fencing token of the current hold of the
// resource.
func (c *Client) Validate(ctx context.Context, resource string, token int64) (bool, error) {
	v, err := read[wire.Validity](ctx, c, "/locks/validate",
		url.Values{"resource_name": {resource}, "fencing_token": {strconv.FormatInt(token, 10)}})
	return v.Valid, err
}

// ListOptions filter a list of locks. The zero value selects all locks.
type ListOptions struct {
	Prefix string // of the names of the resources
	Owner  string
	Limit  int // the maximum number of locks; 0: all
}

// Locks lists the current holds, ordered by name if there is a Prefix. It reads a page at
// a time. A hold that begins or ends meanwhile may be missing or listed. An error ends
// the list.
func (c *Client) Locks(ctx context.Context, o ListOptions) iter.Seq2[Hold, error] {
	query := url.Values{}
	setIf(query, "prefix", o.Prefix)
	setIf(query, "process_id", o.Owner)
	return pages(ctx, c, "/locks/all-locked", query, o.Limit, func(p struct {
		Locks      []Hold  `json:"locks"`
		NextCursor *string `json:"next_cursor"`
	},
	) ([]Hold, *string) {
		return p.Locks, p.NextCursor
	})
}

// Queue lists the requests that wait for a resource, in the order in which they are
// granted. It lists at most limit requests, or all if limit is 0.
func (c *Client) Queue(ctx context.Context, resource string, limit int) iter.Seq2[Waiter, error] {
	return pages(ctx, c, "/locks/queue", url.Values{"resource_name": {resource}}, limit, func(p struct {
		Waiters    []Waiter `json:"waiters"`
		NextCursor *string  `json:"next_cursor"`
	},
	) ([]Waiter, *string) {
		return p.Waiters, p.NextCursor
	})
}

// HistoryOptions filter the history. The zero value selects all events.
type HistoryOptions struct {
	Resource string
	Owner    string
	Events   []string  // the kinds of events; empty: all
	Since    time.Time // the earliest time; zero: no limit
	Until    time.Time // only events before this time; zero: no limit
	Limit    int       // the maximum number of events; 0: all
}

// History lists the events of the history, newest first.
func (c *Client) History(ctx context.Context, o HistoryOptions) iter.Seq2[Event, error] {
	query := url.Values{}
	setIf(query, "resource_name", o.Resource)
	setIf(query, "process_id", o.Owner)
	setIf(query, "event", strings.Join(o.Events, ","))
	if !o.Since.IsZero() {
		query.Set("since", o.Since.Format(time.RFC3339Nano))
	}
	if !o.Until.IsZero() {
		query.Set("until", o.Until.Format(time.RFC3339Nano))
	}
	return pages(ctx, c, "/locks/history", query, o.Limit, func(p struct {
		Events     []Event `json:"events"`
		NextCursor *string `json:"next_cursor"`
	},
	) ([]Event, *string) {
		return p.Events, p.NextCursor
	})
}

func setIf(query url.Values, name, value string) {
	if value != "" {
		query.Set(name, value)
	}
}

// pages lists the items of a paged list. It reads a page when the caller needs it.
func pages[P, T any](
	ctx context.Context, c *Client, path string, query url.Values, limit int, split func(P) ([]T, *string),
) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		left, query := limit, maps.Clone(query) // the caller may iterate several times
		for {
			size := pageSize
			if limit > 0 {
				size = min(size, left)
			}
			query.Set("limit", strconv.Itoa(size))
			p, err := read[P](ctx, c, path, query)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			items, next := split(p)
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if left -= len(items); next == nil || limit > 0 && left <= 0 {
				return
			}
			query.Set("cursor", *next)
		}
	}
}

func read[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	a, err := c.call(ctx, request{method: http.MethodGet, path: path, query: query})
	if err != nil {
		var none T
		return none, err
	}
	return data[T](a)
}

// Renew makes a hold expire after ttl, counted from the server's answer; 0 means never.
// It is for holds that outlive the program that acquired them: a [Lock] renews itself. If
// token is 0, it renews any hold of the owner. It returns a [LostError] if there is no
// such hold.
func (c *Client) Renew(ctx context.Context, resource, owner string, token int64, ttl time.Duration) (Hold, error) {
	if err := valid(text{"resource", resource}, text{"owner", owner}); err != nil {
		return Hold{}, err
	}
	a, err := c.call(ctx, renewal(resource, owner, token, ttl))
	if why := lossOf(err); why != "" {
		err = &LostError{Resource: resource, FencingToken: token, Why: why, cause: err}
	}
	if err != nil {
		return Hold{}, err
	}
	return data[Hold](a)
}

func renewal(resource, owner string, token int64, ttl time.Duration) request {
	body := wire.RenewRequest{ResourceName: resource, ProcessID: owner}
	if ttl > 0 {
		seconds := ttl.Seconds()
		body.TTLSeconds = &seconds
	}
	if token != 0 {
		body.FencingToken = &token
	}
	return request{method: http.MethodPost, path: "/locks/renew", body: &body}
}

// Release ends a hold. It is for holds that outlive the program that acquired them. If
// token is 0, it ends any hold of the owner. It returns nil if the owner has released the
// hold before, and a [LostError] if the hold was lost.
func (c *Client) Release(ctx context.Context, resource, owner string, token int64) error {
	err := c.release(ctx, resource, owner, token, c.retries("/locks/release"))
	if lost, is := errors.AsType[*LostError](err); is && lost.Why == LossReleasedElsewhere {
		return nil
	}
	return err
}

func (c *Client) release(ctx context.Context, resource, owner string, token int64, retries *retries) error {
	if err := valid(text{"resource", resource}, text{"owner", owner}); err != nil {
		return err
	}
	body := wire.ReleaseRequest{ResourceName: resource, ProcessID: owner}
	if token != 0 {
		body.FencingToken = &token
	}
	a, err := c.retry(ctx, request{method: http.MethodPost, path: "/locks/release", body: &body}, retries)
	if err == nil {
		_, err = data[wire.Released](a)
		retries.mayBeExecuted = retries.mayBeExecuted || err != nil
	}
	if why := lossOf(err); why != "" {
		return &LostError{Resource: resource, FencingToken: token, Why: why, cause: err}
	}
	return err
}

// ForceReleaseOptions are the options of a force-release.
type ForceReleaseOptions struct {
	Reason       string // for the history; must not be empty
	By           string // for the history; empty: this machine's address, as the server sees it
	FencingToken int64  // only this hold is ended; 0: the current hold, also one that has just begun
}

// ForceRelease ends a hold of any owner and returns the ended hold. It returns an
// [APIError] with the status 404 if there is no such hold. Without a FencingToken it is
// not retried after a server may have executed it.
func (c *Client) ForceRelease(ctx context.Context, resource string, o ForceReleaseOptions) (Hold, error) {
	if err := valid(text{"resource", resource}, text{"By", o.By}, text{"Reason", o.Reason}); err != nil {
		return Hold{}, err
	}
	body := wire.ForceReleaseRequest{ResourceName: resource, Reason: o.Reason}
	if o.By != "" {
		body.ProcessID = &o.By
	}
	if o.FencingToken != 0 {
		body.FencingToken = &o.FencingToken
	}
	retries := c.retries("/locks/force-release")
	retries.once = o.FencingToken == 0
	a, err := c.retry(ctx, request{method: http.MethodPost, path: "/locks/force-release", body: &body}, retries)
	if api, is := errors.AsType[*APIError](err); is && api.Status == http.StatusNotFound && o.FencingToken != 0 {
		return c.endedBefore(ctx, resource, o, err)
	}
	if err != nil {
		return Hold{}, err
	}
	ended, err := data[struct {
		Holder Hold `json:"holder"`
	}](a)
	ended.Holder.Resource = resource
	return ended.Holder, err
}

// endedBefore returns the hold if the same request has ended it before, and its answer
// was lost. It reads this from the history. Otherwise it returns notFound.
func (c *Client) endedBefore(
	ctx context.Context, resource string, o ForceReleaseOptions, notFound error,
) (Hold, error) {
	history := c.History(ctx, HistoryOptions{Resource: resource, Events: []string{"force_released"}, Limit: 10})
	for e, err := range history {
		if err == nil && e.FencingToken == o.FencingToken && e.Reason == o.Reason && (o.By == "" || e.By == o.By) {
			ended := wire.Hold{
				ProcessID: e.Owner, FencingToken: e.FencingToken,
				Times: wire.Times{LockedAt: wire.Time(e.At.Add(-e.Held))},
			}
			if e.HoldReason != "" {
				ended.Reason = &e.HoldReason
			}
			var hold Hold
			if err = hold.UnmarshalJSON(wire.Append(nil, &ended)); err == nil {
				hold.Resource = resource
				return hold, nil
			}
		}
	}
	return Hold{}, notFound
}
