package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/apptest"
	"resource-lock-manager/internal/store"
)

// newcomerStep is an operation and a part of its response that the page shows.
type newcomerStep struct {
	operation string
	status    int
	shows     string
}

// newcomer are the steps of a user who opens /docs for the first time: each operation in
// the order of the page, "Try it out", "Execute", without changes. Before an operation
// that ends a lock there is one that acquires it.
var newcomer = []newcomerStep{
	{"post /locks/request", 200, `"message": "Lock acquired successfully for resource 'database_backup'"`},
	{"post /locks/request", 409, `"code": "already_locked"`},
	{"get /locks/status", 200, `"is_locked": true`},
	{"get /locks/all-locked", 200, `"total_locks": 1`},
	{"get /locks/queue", 200, `"waiters": []`},
	{"get /locks/history", 200, `"event": "acquired"`},
	{"post /locks/renew", 200, `"renewals": 1`},
	{"post /locks/renew-all", 200, `"renewed": 1`},
	{"get /locks/validate", 200, `"valid": false`}, // no hold has the token of the example
	{"delete /locks/release", 200, `"released_at"`},
	{"post /locks/request", 200, `"fencing_token"`},
	{"post /locks/release", 200, `"released_at"`},
	{"post /locks/request", 200, `"fencing_token"`},
	{"delete /locks/release-all", 200, `"released": 1`},
	{"post /locks/request", 200, `"fencing_token"`},
	{"post /locks/release-all", 200, `"released": 1`},
	{"post /locks/request", 200, `"fencing_token"`},
	{"delete /locks/force-release", 200, `"by": "127.0.0.1"`},
	{"post /locks/request", 200, `"fencing_token"`},
	{"post /locks/force-release", 200, `"by": "127.0.0.1"`},
	{"get /health", 200, `"status": "healthy"`},
	{"get /livez", 200, `"status": "ok"`},
	{"get /readyz", 200, `"status": "ok"`},
}

// TestNewcomerInABrowser executes every operation of the page as it is prefilled.
func TestNewcomerInABrowser(t *testing.T) {
	t.Parallel()
	s := realServer(t, store.SQLite)
	s.clock.advance(time.Minute) // so that no time is that of the documented examples
	b := apptest.StartBrowser(t)
	b.Do(t, "open the page", chromedp.Navigate(s.URL), chromedp.WaitVisible(chromedp.CSS(".opblock")))
	listed := apptest.Ask(t, b, "list the operations", chromedp.Evaluate[[]string](`
		[...document.querySelectorAll(".opblock")].map(o =>
			o.querySelector(".opblock-summary-method").textContent.toLowerCase() + " " +
			o.querySelector("[data-path]").dataset.path)`))
	var tried []string
	for _, step := range newcomer {
		again := slices.Contains(tried, step.operation)
		step.execute(t, b, again)
		if !again {
			tried = append(tried, step.operation)
		}
	}
	if diff := cmp.Diff(listed, tried); diff != "" {
		t.Errorf("operations (-of the page +tried, in their order):\n%s", diff)
	}
	openReDoc(t, b, s.URL+"/redoc")
	wantNoComplaints(t, b)
}

// TestBelowAPrefixInABrowser checks that "Execute" works behind a proxy that strips a
// prefix.
func TestBelowAPrefixInABrowser(t *testing.T) {
	t.Parallel()
	s := realServer(t, store.SQLite)
	base := proxied(t, s, "/lockd/")
	b := apptest.StartBrowser(t)
	b.Do(t, "open the page", chromedp.Navigate(base+"docs"), chromedp.WaitVisible(chromedp.CSS(".opblock")))
	newcomer[0].execute(t, b, false)
	newcomer[1].execute(t, b, true)
	newcomer[2].execute(t, b, false)
	openReDoc(t, b, base+"redoc/")
	wantNoComplaints(t, b)
}

// execute tries an operation of Swagger UI. With again, it was tried before.
func (step newcomerStep) execute(t *testing.T, b *apptest.Browser, again bool) {
	t.Helper()
	method, path, _ := strings.Cut(step.operation, " ")
	part := func(selector string) chromedp.CSS {
		return chromedp.CSS(fmt.Sprintf(`.opblock-%s:has([data-path="%s"]) %s`, method, path, selector))
	}
	if again {
		b.Do(t, step.operation+": Clear", chromedp.Click(part(".btn-clear")))
	} else {
		b.Do(t, step.operation+": Try it out", chromedp.Click(part(".opblock-summary-control")),
			chromedp.Click(part(".try-out__btn")))
	}
	b.Do(t, step.operation+": Execute", chromedp.Click(part(".execute")))
	const response = ".live-responses-table tbody "
	status := apptest.Ask(t, b, step.operation, chromedp.Text(part(response+".response-col_status")))
	body := apptest.Ask(t, b, step.operation, chromedp.Text(part(response+".highlight-code code")))
	if !strings.HasPrefix(status, fmt.Sprint(step.status)) || !strings.Contains(body, step.shows) {
		t.Errorf("%s: got %s %s\nwant %d with %s", step.operation, status, body, step.status, step.shows)
	}
}

func openReDoc(t *testing.T, b *apptest.Browser, url string) {
	t.Helper()
	b.Do(t, "open ReDoc", chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS(`[data-section-id="tag/locks"]`)))
}

func wantNoComplaints(t *testing.T, b *apptest.Browser) {
	t.Helper()
	if got := b.Complaints(); len(got) > 0 {
		t.Errorf("the browser complains:\n%s", strings.Join(got, "\n"))
	}
}
