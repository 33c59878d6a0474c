package store

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"resource-lock-manager/internal/lock"
)

// filled returns a value whose fields are all set, each to another value.
func filled[T any](t *testing.T) (v T) {
	t.Helper()
	n := 0
	var fill func(reflect.Value)
	fill = func(v reflect.Value) {
		for i := range v.NumField() {
			n++
			switch f := v.Field(i); f.Interface().(type) {
			case time.Time:
				f.Set(reflect.ValueOf(time.Date(2026, 1, 1, 0, 0, n, 0, time.UTC)))
			case time.Duration:
				f.SetInt(int64(time.Duration(n) * time.Second))
			default:
				switch f.Kind() {
				case reflect.Int, reflect.Int64:
					f.SetInt(int64(n))
				case reflect.String:
					f.SetString(fmt.Sprint("text ", n))
				case reflect.Bool:
					f.SetBool(true)
				case reflect.Struct:
					fill(f)
				default:
					t.Fatalf("no value for the field %s of %T", v.Type().Field(i).Name, v.Interface())
				}
			}
		}
	}
	fill(reflect.ValueOf(&v).Elem())
	return v
}

// Every field of a hold, a waiter and an event survives its row: none was forgotten when it
// was added.
func TestRowsKeepEveryField(t *testing.T) {
	t.Parallel()
	hold := filled[lock.Hold](t)
	r := lock.Resource{
		ID: 101, Name: "r", Token: hold.Token, Holds: []lock.Hold{hold}, Waiters: 102, Detached: 103, LastTicket: 104,
	}
	row := rowOf(r)
	if diff := cmp.Diff(r, row.resource()); diff != "" {
		t.Errorf("a held resource (-want +got):\n%s", diff)
	}
	r.Holds, r.Last, r.EndedAt = nil, hold, time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)
	row = rowOf(r)
	if diff := cmp.Diff(r, row.resource()); diff != "" {
		t.Errorf("a free resource (-want +got):\n%s", diff)
	}

	w := filled[lock.Waiter](t)
	waiter := waiterRowOf(1, 2, &w)
	ignored := cmp.Options{ // they matter only to the server that executes the acquire, or are read from lock_servers
		cmpopts.IgnoreFields(lock.Request{}, "Wait"), cmpopts.IgnoreFields(lock.Waiter{}, "AliveUntil", "Local"),
	}
	if diff := cmp.Diff(&w, waiter.waiter(w.Request.Resource, 2), ignored); diff != "" {
		t.Errorf("a waiter (-want +got):\n%s", diff)
	}

	e := filled[lock.Event](t)
	event := eventRowOf(e)
	if diff := cmp.Diff(e, event.event(), cmpopts.IgnoreFields(lock.Event{}, "ID")); diff != "" { // the database sets it
		t.Errorf("an event (-want +got):\n%s", diff)
	}
}
