package main

import (
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"resource-lock-manager/client"
)

func newList(p *program) *cobra.Command {
	var t table
	var owner string
	cmd := &cobra.Command{
		Use:   "list [PREFIX]",
		Short: "List the locked resources",
		Long:  "List the locked resources in the order of their names, or only those whose names begin with PREFIX.",
		Example: `  lockctl list
  lockctl list deploy/ --limit 20
  lockctl list --process-id "$USER@$(hostname)" --json`,
		Args:              arguments(0, 1),
		ValidArgsFunction: p.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.client(client.Options{})
			if err != nil {
				return err
			}
			o := client.ListOptions{Owner: owner, Limit: t.limit}
			if len(args) > 0 {
				o.Prefix = args[0]
			}
			return printTable(p, t, c.Locks(cmd.Context(), o), "nothing is locked",
				[]string{"NAME", "HOLDER", "SINCE", "EXPIRES", "REASON"},
				func(h client.Hold) []string {
					now := p.serverTime(h)
					return []string{h.Resource, h.Owner, p.moment(h.LockedAt, now), p.moment(h.ExpiresAt, now), h.Reason}
				})
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&owner, "process-id", "", "only what this process holds")
	return cmd
}

func newQueue(p *program) *cobra.Command {
	var t table
	cmd := &cobra.Command{
		Use:               "queue NAME",
		Short:             "List the requests that wait for a resource",
		Long:              "List the requests that wait for a resource, in the order in which they will be served.",
		Example:           "  lockctl queue deploy/web",
		Args:              arguments(1, 1),
		ValidArgsFunction: p.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.client(client.Options{})
			if err != nil {
				return err
			}
			return printTable(p, t, c.Queue(cmd.Context(), args[0], t.limit), "nobody waits for "+args[0],
				[]string{"POSITION", "PROCESS", "SINCE", "REASON"},
				func(w client.Waiter) []string {
					return []string{strconv.Itoa(w.Position), w.Owner, p.moment(w.Since, w.Since.Add(w.Waited)), w.Reason}
				})
		},
	}
	t.flags(cmd)
	return cmd
}

func newHistory(p *program) *cobra.Command {
	var (
		t            table
		owner        string
		events       []string
		since, until string
	)
	cmd := &cobra.Command{
		Use:   "history [NAME]",
		Short: "List what happened, newest first",
		Long:  "List what happened, or what happened to one resource, newest first.",
		Example: `  lockctl history deploy/web --limit 10
  lockctl history --event force_released,expired --since 24h
  lockctl history --since 2026-01-31T08:00:00Z --until 10m --json`,
		Args:              arguments(0, 1),
		ValidArgsFunction: p.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := client.HistoryOptions{Owner: owner, Events: events, Limit: t.limit}
			if len(args) > 0 {
				o.Resource = args[0]
			}
			var err error
			if o.Since, err = p.parseMoment("--since", since); err != nil {
				return err
			}
			if o.Until, err = p.parseMoment("--until", until); err != nil {
				return err
			}
			c, err := p.client(client.Options{})
			if err != nil {
				return err
			}
			return printTable(p, t, c.History(cmd.Context(), o), "no such events",
				[]string{"AT", "EVENT", "NAME", "PROCESS", "HELD", "WAITED", "BY", "REASON"},
				func(e client.Event) []string {
					reason := e.Reason
					if reason == "" {
						reason = e.HoldReason
					}
					return []string{p.moment(e.At, p.now()), e.Event, e.Resource, e.Owner, p.length(e.Held), p.length(e.Waited), e.By, reason}
				})
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&owner, "process-id", "", "only holds and waits of this process")
	cmd.Flags().StringSliceVar(&events, "event", nil, "only these `kinds`, separated by commas: "+strings.Join(eventKinds, ", "))
	cmd.Flags().StringVar(&since, "since", "", "only events at this `time` or later: RFC 3339, or how long ago, such as 2h")
	cmd.Flags().StringVar(&until, "until", "", "only events before this `time`, in the same forms")
	_ = cmd.RegisterFlagCompletionFunc("event", cobra.FixedCompletions(eventKinds, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	return cmd
}

// eventKinds are those that the help names. The server decides what it accepts.
var eventKinds = []string{"acquired", "granted", "released", "force_released", "expired", "queued", "gave_up"}

// parseMoment reads a time, or how long ago it was; empty: no time.
func (p *program) parseMoment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := parseDuration(text); err == nil {
		return p.now().Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, usagef("%s %q: want a time such as 2026-01-31T08:00:00Z, or how long ago it was, such as 2h", flag, text)
	}
	return t, nil
}

// table is how a list is printed.
type table struct {
	asJSON    bool
	noHeaders bool
	limit     int
}

func (t *table) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&t.asJSON, "json", false, "print the API's JSON, one object a line")
	cmd.Flags().BoolVar(&t.noHeaders, "no-headers", false, "leave out the line with the names of the columns")
	cmd.Flags().Var((*count)(&t.limit), "limit", "the maximum `number` of lines (default all)")
}

// together is how many lines are aligned with each other: a longer list is printed while
// it is read.
const together = 1000

// printTable prints a line for each item. The cells need not be escaped. Nothing is
// printed to stdout for no items, only a hint for a person.
func printTable[T any](p *program, t table, items iter.Seq2[T, error], empty string, header []string, cells func(T) []string) error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	n := 0
	for item, err := range items {
		if err != nil {
			_ = w.Flush() // the lines before the failure are right
			return err
		}
		if t.asJSON {
			if err := p.printJSON(item); err != nil {
				return err
			}
			n++
			continue
		}
		if n == 0 && !t.noHeaders {
			write(w, header...)
		}
		line := cells(item)
		for i, cell := range line {
			line[i] = escape(cell)
			if cell == "" {
				line[i] = "-"
			}
		}
		write(w, line...)
		if n++; n%together == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	if n == 0 && !t.asJSON && isTerminal(p.out) {
		p.say("%s", empty)
	}
	return w.Flush()
}

// write writes a line of cells. A tabwriter reports what fails at its Flush.
func write(w io.Writer, cells ...string) {
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}
