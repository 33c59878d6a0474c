package robust

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"resource-lock-manager/client"
)

// owner is a client that uses package client. Its requests are recorded like those of
// other clients. The periods in which it says that it holds a lock are recorded too.
type owner struct {
	*worker
	tb testing.TB
}

// work acquires one lock after the other until the work ends.
func (w owner) work() {
	c, err := client.New(w.url, client.Options{HTTPClient: &http.Client{Transport: recorder{w.Client}}})
	if err != nil {
		w.tb.Error(err)
		return
	}
	for w.working.Err() == nil {
		w.takeTurn(c, resourceName(w.rand.IntN(w.Resources)))
		w.pause(w.upTo(w.Think))
	}
}

// takeTurn waits for a lock, perhaps for too short a time, and works with it, perhaps for
// longer than its TTL.
func (w owner) takeTurn(c *client.Client, resource string) {
	ttl := 300*time.Millisecond + w.upTo(LongestTTL-300*time.Millisecond)
	ctx, cancel := context.WithTimeout(w.alive, w.upTo(LongestWait))
	if w.rand.IntN(2) == 0 { // the wait is canceled
		time.AfterFunc(w.upTo(LongestWait), cancel)
	}
	defer cancel()
	lock, err := c.Lock(ctx, resource, client.LockOptions{TTL: ttl.Truncate(time.Microsecond)})
	if (lock == nil) == (err == nil) {
		w.tb.Errorf("Lock returned %v and %v", lock, err)
	}
	if err != nil {
		return
	}
	claim := Claim{Resource: resource, Token: lock.FencingToken(), From: w.history.Elapsed()}
	end := claim.From + w.upTo(50*time.Millisecond)
	if w.rand.IntN(3) == 0 {
		end += w.upTo(2 * LongestTTL)
	}
	for now := claim.From; now < end && lock.Err() == nil && w.alive.Err() == nil; now = w.history.Elapsed() {
		claim.To = now // Err returned nil after this time was read
		w.pause(time.Millisecond)
	}
	w.history.AddClaim(claim)
	release, cancel := context.WithTimeout(w.alive, w.AnswerTimeout)
	defer cancel()
	if err := lock.Unlock(release); err != nil && !errors.Is(err, client.ErrLost) &&
		!errors.Is(err, client.ErrUnavailable) && release.Err() == nil {
		w.tb.Errorf("Unlock returned %v", err)
	}
}

// recorder records the requests of package client.
type recorder struct{ *Client }

// RoundTrip implements [http.RoundTripper].
func (r recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	o, read, err := operationOf(req.URL.Path, body)
	if err != nil {
		return nil, err
	}
	sent := req.Clone(req.Context())
	sent.Body = io.NopCloser(bytes.NewReader(body))
	var res *http.Response
	var failed error
	r.record(req.Context(), o, read, func() (int, []byte, error) {
		var answer []byte
		if res, failed = r.http.Transport.RoundTrip(sent); failed != nil { //nolint:bodyclose // it is closed below
			return 0, nil, failed
		}
		defer res.Body.Close()
		answer, failed = io.ReadAll(res.Body)
		res.Body = io.NopCloser(bytes.NewReader(answer))
		return res.StatusCode, answer, failed
	})
	if failed != nil {
		return nil, failed
	}
	return res, nil
}

// operationOf returns the operation of a request of package client, and the function that
// reads its answer.
func operationOf(path string, body []byte) (o Operation, read func(*Operation, []byte) error, err error) {
	var b struct { // the fields of all requests
		ResourceName string   `json:"resource_name"`
		ProcessID    string   `json:"process_id"`
		RequestID    string   `json:"request_id"`
		TTLSeconds   *float64 `json:"ttl_seconds"`
		WaitSeconds  *float64 `json:"wait_seconds"`
		FencingToken int64    `json:"fencing_token"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return o, nil, err
	}
	o = Operation{
		Resource: b.ResourceName, Process: b.ProcessID, RequestID: b.RequestID, Token: b.FencingToken,
		TTL: durationOf(b.TTLSeconds), Wait: durationOf(b.WaitSeconds),
	}
	switch path {
	case "/locks/request":
		o.Kind, read = Acquire, readGrant
	case "/locks/renew":
		o.Kind, read = Renew, readRenewal
	case "/locks/release":
		o.Kind, read = Release, readRelease
	default:
		err = fmt.Errorf("package client sent a request to %s", path)
	}
	return o, read, err
}

func durationOf(seconds *float64) time.Duration {
	if seconds == nil {
		return 0
	}
	return time.Duration(*seconds * float64(time.Second)).Round(time.Microsecond)
}

// CheckClaims reports every client that said that it held a lock while another client
// said so too, or while the service granted the lock to another client.
func CheckClaims(claims []Claim, operations []Operation) (violations []Violation) {
	broken := func(c Claim, format string, args ...any) {
		what := fmt.Sprintf("the client with token %d said from %v to %v that it held it, ", c.Token, c.From,
			c.To) + fmt.Sprintf(format, args...)
		violations = append(violations, Violation{Guarantee: "G1", Resource: c.Resource, What: what})
	}
	sorted := slices.SortedFunc(slices.Values(claims), func(a, b Claim) int { return cmp.Compare(a.From, b.From) })
	longest := map[string]Claim{} // by resource: the claim so far that ended last
	for _, c := range sorted {
		if before, ok := longest[c.Resource]; ok && c.From < before.To {
			broken(before, "and the one with token %d from %v", c.Token, c.From)
		}
		if c.To > longest[c.Resource].To {
			longest[c.Resource] = c
		}
	}
	granted := map[string][]Operation{}
	for _, o := range operations {
		if o.Kind == Acquire && o.Outcome == Done {
			granted[o.Resource] = append(granted[o.Resource], o)
		}
	}
	for _, c := range sorted {
		for _, o := range granted[c.Resource] {
			if o.Holder.Token > c.Token && o.Returned < c.To {
				broken(c, "but %v", o)
				break
			}
		}
	}
	return violations
}
