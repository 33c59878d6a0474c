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

// raw is the JSON that a value was read from. It is what the value is encoded as, so that
// fields that this package does not know are passed on.
type raw struct{ text json.RawMessage }

// MarshalJSON returns the server's own JSON.
func (r raw) MarshalJSON() ([]byte, error) {
	if r.text == nil {
		return []byte("null"), nil
	}
	return r.text, nil
}

// Hold is a lock that somebody has, as the server describes it. It is encoded as the
// server's JSON.
type Hold struct {
	raw
	Resource     string
	Owner        string // the API's process_id
	FencingToken int64
	LockedAt     time.Time       // by the server's clock, like all times here
	ExpiresAt    time.Time       // zero: never
	ExpiresIn    time.Duration   // from the answer; 0: never
	Reason       string          // empty: none
	Metadata     json.RawMessage // a JSON object; nil: none
	Renewals     int             // only of Status and Renew
	MinHoldUntil time.Time       // only of Status; zero: no minimum
	ReleasedAt   time.Time       // only of Status; not zero: released, and kept taken until ExpiresAt by its minimum hold
}

// String says who has what, for logs.
func (h Hold) String() string {
	return fmt.Sprintf("%s held by %s with token %d", h.Resource, h.Owner, h.FencingToken)
}

// UnmarshalJSON reads a hold in each of the forms that the API has for it.
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
		raw: raw{append(json.RawMessage(nil), text...)}, Resource: w.ResourceName, Owner: w.ProcessID + w.LockedBy,
		FencingToken: w.FencingToken, LockedAt: time.Time(w.LockedAt), ExpiresAt: timeOf(w.ExpiresAt),
		ExpiresIn: duration(orZero(w.ExpiresInSeconds)), Reason: orZero(w.Reason), Metadata: objectOf(w.Metadata),
		Renewals: w.Renewals, MinHoldUntil: timeOf(w.MinHoldUntil), ReleasedAt: timeOf(w.ReleasedAt),
	}
	return nil
}

// Status is whether a resource is locked, and by whom. It is encoded as the server's
// JSON.
type Status struct {
	raw
	Resource string
	Holder   *Hold // nil: the resource is free
	Waiters  int   // how many requests wait for it
}

// String says who has the resource, for logs.
func (s Status) String() string {
	if s.Holder == nil {
		return s.Resource + " is free"
	}
	return s.Holder.String()
}

// UnmarshalJSON reads the API's form.
func (s *Status) UnmarshalJSON(text []byte) error {
	var w wire.Status
	if err := json.Unmarshal(text, &w); err != nil {
		return err
	}
	*s = Status{raw: raw{append(json.RawMessage(nil), text...)}, Resource: w.ResourceName, Waiters: w.Waiters}
	if w.IsLocked {
		s.Holder = &Hold{}
		return s.Holder.UnmarshalJSON(text)
	}
	return nil
}

// Waiter is a request that waits for a resource. It is encoded as the server's JSON.
type Waiter struct {
	raw
	Position int // 1: the next
	Owner    string
	Since    time.Time
	Waited   time.Duration
	Reason   string
	Metadata json.RawMessage
}

// UnmarshalJSON reads the API's form.
func (w *Waiter) UnmarshalJSON(text []byte) error {
	var from wire.Waiter
	if err := json.Unmarshal(text, &from); err != nil {
		return err
	}
	*w = Waiter{
		raw: raw{append(json.RawMessage(nil), text...)}, Position: from.Position, Owner: from.ProcessID, Since: time.Time(from.WaitingSince),
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
	Owner        string        // the holder, or who waits
	FencingToken int64         // 0: the event is not about a hold
	Held         time.Duration // of the end of a hold
	Waited       time.Duration // of the end of waiting
	Renewals     int           // of the end of a hold
	Reason       string        // why it was acquired, was broken, or ended
	By           string        // who broke it
	HoldReason   string        // of the end of a hold: why it was acquired
}

// UnmarshalJSON reads the API's form.
func (e *Event) UnmarshalJSON(text []byte) error {
	var w wire.Event
	if err := json.Unmarshal(text, &w); err != nil {
		return err
	}
	*e = Event{
		raw: raw{append(json.RawMessage(nil), text...)}, ID: w.ID, Event: w.Event, At: time.Time(w.At), Resource: w.ResourceName,
		Owner: w.ProcessID, FencingToken: orZero(w.FencingToken), Held: duration(orZero(w.HeldSeconds)),
		Waited: duration(orZero(w.WaitedSeconds)), Renewals: orZero(w.Renewals), Reason: orZero(w.Reason), By: orZero(w.By),
		HoldReason: orZero(w.HoldReason),
	}
	return nil
}

// objectOf returns nil for no object.
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

// Status reads who holds a resource. Like every read, it is repeated until a server answers,
// ctx ends, or no server has answered for [Options.ServerTimeout].
func (c *Client) Status(ctx context.Context, resource string) (Status, error) {
	return read[Status](ctx, c, "/locks/status", url.Values{"resource_name": {resource}})
}

// Validate reports whether a fencing token is that of the hold that the resource has now.
func (c *Client) Validate(ctx context.Context, resource string, token int64) (bool, error) {
	v, err := read[wire.Validity](ctx, c, "/locks/validate",
		url.Values{"resource_name": {resource}, "fencing_token": {strconv.FormatInt(token, 10)}})
	return v.Valid, err
}

// ListOptions narrow a list of locks. The zero value is all of them.
type ListOptions struct {
	Prefix string // of the resources' names
	Owner  string
	Limit  int // the maximum number of locks; 0: all
}

// Locks lists the locks that are held, ordered by name if there is a Prefix. It reads a
// page at a time; a lock that comes or goes meanwhile may be missed or shown. An error
// ends the list.
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

// Queue lists the requests that wait for a resource, in the order in which they will be
// served; at most limit of them, or all if it is 0.
func (c *Client) Queue(ctx context.Context, resource string, limit int) iter.Seq2[Waiter, error] {
	return pages(ctx, c, "/locks/queue", url.Values{"resource_name": {resource}}, limit, func(p struct {
		Waiters    []Waiter `json:"waiters"`
		NextCursor *string  `json:"next_cursor"`
	},
	) ([]Waiter, *string) {
		return p.Waiters, p.NextCursor
	})
}

// HistoryOptions narrow the history. The zero value is all of it.
type HistoryOptions struct {
	Resource string
	Owner    string
	Events   []string  // only these kinds
	Since    time.Time // only events at this time or later
	Until    time.Time // only events before this time
	Limit    int       // the maximum number of events; 0: all
}

// History lists what happened, newest first.
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

// pages asks for one page after the other while the caller wants more.
func pages[P, T any](ctx context.Context, c *Client, path string, query url.Values, limit int, split func(P) ([]T, *string)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		left, query := limit, maps.Clone(query) // the list may be read several times
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

// Renew has a hold expire when ttl has passed since the server's answer; 0: never. It is
// for holds that outlive the program that acquired them: a [Lock] renews itself. token 0
// is whichever hold the owner has. It returns a [LostError] when there is no such hold.
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

// Release ends a hold, for holds that outlive the program that acquired them. token 0 is
// whichever hold the owner has. A hold that the owner has released before is no error;
// one that was lost is a [LostError].
func (c *Client) Release(ctx context.Context, resource, owner string, token int64) error {
	err := c.release(ctx, resource, owner, token, c.retries("/locks/release"))
	if lost, is := errors.AsType[*LostError](err); is && lost.Why == LossReleasedElsewhere {
		return nil
	}
	return err
}

func (c *Client) release(ctx context.Context, resource, owner string, token int64, again *retries) error {
	if err := valid(text{"resource", resource}, text{"owner", owner}); err != nil {
		return err
	}
	body := wire.ReleaseRequest{ResourceName: resource, ProcessID: owner}
	if token != 0 {
		body.FencingToken = &token
	}
	a, err := c.retry(ctx, request{method: http.MethodPost, path: "/locks/release", body: &body}, again)
	if err == nil {
		_, err = data[wire.Released](a)
		again.uncertain = again.uncertain || err != nil
	}
	if why := lossOf(err); why != "" {
		return &LostError{Resource: resource, FencingToken: token, Why: why, cause: err}
	}
	return err
}

// ForceReleaseOptions say which hold is broken, and for the history why and by whom.
type ForceReleaseOptions struct {
	Reason       string // must not be empty
	By           string // empty: the address of this machine, as the server sees it
	FencingToken int64  // only this hold is broken; 0: whichever there is, also one that has just begun
}

// ForceRelease ends a hold of anybody. It returns the hold as it was. Its error is an
// [APIError] with the status 404 if there is no such hold. It is sent at most once to a
// server that may have executed it, unless there is a FencingToken.
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
	again := c.retries("/locks/force-release")
	again.once = o.FencingToken == 0
	a, err := c.retry(ctx, request{method: http.MethodPost, path: "/locks/force-release", body: &body}, again)
	if api, is := errors.AsType[*APIError](err); is && api.Status == http.StatusNotFound && o.FencingToken != 0 {
		return c.brokenBefore(ctx, resource, o, err)
	}
	if err != nil {
		return Hold{}, err
	}
	broken, err := data[struct {
		Holder Hold `json:"holder"`
	}](a)
	broken.Holder.Resource = resource
	return broken.Holder, err
}

// brokenBefore looks in the history whether the hold is one that the same request has
// broken: its answer may have been lost. Otherwise it returns the error.
func (c *Client) brokenBefore(ctx context.Context, resource string, o ForceReleaseOptions, err error) (Hold, error) {
	for e, failed := range c.History(ctx, HistoryOptions{Resource: resource, Events: []string{"force_released"}, Limit: 10}) {
		if failed == nil && e.FencingToken == o.FencingToken && e.Reason == o.Reason && (o.By == "" || e.By == o.By) {
			broken := wire.Hold{ProcessID: e.Owner, Times: wire.Times{LockedAt: wire.Time(e.At.Add(-e.Held))}, FencingToken: e.FencingToken}
			if e.HoldReason != "" {
				broken.Reason = &e.HoldReason
			}
			var hold Hold
			if failed = hold.UnmarshalJSON(wire.Append(nil, &broken)); failed == nil {
				hold.Resource = resource
				return hold, nil
			}
		}
	}
	return Hold{}, err
}
