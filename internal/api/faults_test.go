package api

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

func TestEveryRuleHasWords(t *testing.T) {
	source, err := os.ReadFile("../lock/validate.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^\t\w+ +Rule = "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(found) != len(rules) {
		t.Errorf("%d rules in package lock, %d with words", len(found), len(rules))
	}
	for _, match := range found {
		if words := rules[lock.Rule(match[1])]; words.kind == "" || words.message == "" {
			t.Errorf("no words for the rule %s", match[1])
		}
	}
}

// TestMerge: a fault of the domain is left out if its field, or what contains the field,
// could not be read. Other elements of the same list do not matter.
func TestMerge(t *testing.T) {
	var read faults
	read.addRule(lock.Required, nil, "body", "resource_name")
	read.addRule(lock.Required, nil, "query", "process_id")
	read.add("model_attributes_type", notAnObject, "body", "holds", 1)
	read.addRule(lock.Required, nil, "body", "holds", 2, "fencing_token")
	read.add(misplaced, "no body", "body") // of no field
	found := []lock.Fault{
		{Path: []any{"resource_name"}, Rule: lock.NotEmpty},
		{Path: []any{"process_id"}, Rule: lock.NotEmpty},
		{Path: []any{"ttl_seconds"}, Rule: lock.Maximum, Limit: 1500 * time.Millisecond},
		{Path: []any{"holds", 0, "resource_name"}, Rule: lock.MaxLength, Limit: 255},
		{Path: []any{"holds", 1, "resource_name"}, Rule: lock.NotEmpty},
		{Path: []any{"holds", 2, "resource_name"}, Rule: lock.NoControlCharacter, Limit: '\x1b'},
		{Path: []any{"holds", 2, "fencing_token"}, Rule: lock.Positive},
		{Path: []any{"until"}, Rule: lock.LaterThan, Limit: "since"},
	}
	want := slices.Concat(read, faults{
		wire.Fault{
			Loc: []any{"body", "ttl_seconds"}, Msg: "Input should be less than or equal to 1.5",
			Type: "less_than_equal",
		},
		wire.Fault{
			Loc: []any{"body", "holds", 0, "resource_name"},
			Msg: "String should have at most 255 characters", Type: "string_too_long",
		},
		wire.Fault{
			Loc: []any{"body", "holds", 2, "resource_name"},
			Msg: "String should have no control characters, found U+001B", Type: "string_control_character",
		},
		wire.Fault{Loc: []any{"body", "until"}, Msg: "Input should be later than since", Type: "greater_than"},
	})
	err, _ := errors.AsType[*invalidError](read.merge(found, inBody))
	if diff := cmp.Diff(want, err.faults); diff != "" {
		t.Error("faults (-want +got):\n" + diff)
	}
	if err := faults(nil).merge(nil, inBody); err != nil {
		t.Errorf("no faults, but %v", err)
	}
}

// BenchmarkManyFaults refuses the body of 64 KiB with the most faults. Its time must grow
// with their number, not with the square of it.
func BenchmarkManyFaults(b *testing.B) {
	for _, n := range []int{1_000, 20_000} {
		var read faults
		var found []lock.Fault
		for i := range n {
			read.addRule(lock.Required, nil, "body", "holds", i, "resource_name")
			found = append(found, lock.Fault{Path: []any{"holds", i, "resource_name"}, Rule: lock.NotEmpty})
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if read.merge(found, inBody) == nil {
					b.Fatal("no fault")
				}
			}
		})
	}
}
