package apptest

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Browser is a page of a real browser. It reaches this machine and no other.
type Browser struct {
	ctx context.Context

	mu         sync.Mutex
	complaints []string
}

// StartBrowser starts Chromium without a window. It ends with the test.
func StartBrowser(tb testing.TB) *Browser {
	tb.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, // the sandbox does not start as root, and the pages are this project's
		chromedp.UserDataDir(tb.TempDir()),
		chromedp.WindowSize(1280, 1600),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	tb.Cleanup(stop)
	b := &Browser{}
	b.ctx, stop = chromedp.NewContext(ctx, chromedp.WithListener(b.note))
	tb.Cleanup(stop)
	if err := chromedp.Do(b.ctx); err != nil {
		tb.Fatalf("this test needs a browser: install Debian's package chromium, or put the program on the PATH: %v",
			err)
	}
	return b
}

// note records the errors of the page and its requests to other machines. How the page
// shows a refused request is not an error.
func (b *Browser) note(event any) {
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			b.complain("%s (%s)", e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError {
			b.complain("console.error: %s", e.Args[0].Value)
		}
	case *runtime.EventExceptionThrown:
		b.complain("%v", e.ExceptionDetails)
	case *network.EventLoadingFailed:
		b.complain("a request failed: %s %s", e.ErrorText, e.BlockedReason)
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err != nil || strings.HasPrefix(u.Scheme, "http") && u.Hostname() != "127.0.0.1" {
			b.complain("a request to another machine: %s", e.Request.URL)
		}
	}
}

func (b *Browser) complain(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.complaints = append(b.complaints, fmt.Sprintf(format, args...))
}

// Complaints returns the errors so far.
func (b *Browser) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.complaints)
}

// Ask runs an action in the page and returns its result. It fails the test if the action
// fails. It is not a method, because methods have no type parameters.
func Ask[T any](tb testing.TB, b *Browser, what string, action chromedp.Action[T]) T {
	tb.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, Timeout)
	defer cancel()
	answer, err := chromedp.Run(ctx, action)
	if err != nil {
		tb.Fatalf("%s: %v", what, err)
	}
	return answer
}

// Do runs steps in the page. It fails the test if a step fails.
func (b *Browser) Do(tb testing.TB, what string, steps ...chromedp.Action[chromedp.Void]) {
	tb.Helper()
	Ask(tb, b, what, chromedp.Steps(steps...))
}
