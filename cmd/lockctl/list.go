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
		Long: `List the locked resources in the order of their names. With PREFIX, list only resources whose
names begin with PREFIX.`,
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
					since, expires := p.tableTime(h.LockedAt, now), p.tableTime(h.ExpiresAt, now)
					return []string{h.Resource, h.Owner, since, expires, h.Reason}
				})
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&owner, "process-id", "", "only holds of this process")
	return cmd
}

func newQueue(p *program) *cobra.Command {
	var t table
	cmd := &cobra.Command{
		Use:               "queue NAME",
		Short:             "List the requests that wait for a resource",
		Long:              "List the requests that wait for a resource, in the order in which they are granted.",
		Example:           "  lockctl queue deploy/web",
		Args:              arguments(1, 1),
		ValidArgsFunction: p.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.client(client.Options{})
			if err != nil {
				return err
			}
			return printTable(p, t, c.Queue(cmd.Context(), args[0], t.limit), "no request waits for "+args[0],
				[]string{"POSITION", "PROCESS", "SINCE", "REASON"},
				func(w client.Waiter) []string {
					since := p.tableTime(w.Since, w.Since.Add(w.Waited))
					return []string{strconv.Itoa(w.Position), w.Owner, since, w.Reason}
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
		Short: "List the events of locks, newest first",
		Long:  "List the events of all locks, or of one resource, newest first.",
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
			if o.Since, err = p.parseTime("--since", since); err != nil {
				return err
			}
			if o.Until, err = p.parseTime("--until", until); err != nil {
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
					return []string{
						p.tableTime(e.At, p.now()), e.Event, e.Resource, e.Owner,
						p.tableDuration(e.Held), p.tableDuration(e.Waited), e.By, reason,
					}
				})
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&owner, "process-id", "", "only holds and waits of this process")
	cmd.Flags().StringSliceVar(&events, "event", nil,
		"only these `kinds`, separated by commas: "+strings.Join(eventKinds, ", "))
	cmd.Flags().StringVar(&since, "since", "",
		"only events at this `time` or later: RFC 3339, or a duration before now, such as 2h")
	cmd.Flags().StringVar(&until, "until", "", "only events before this `time`, in the same formats")
	complete := cobra.FixedCompletions(eventKinds, cobra.ShellCompDirectiveNoFileComp)
	_ = cmd.RegisterFlagCompletionFunc("event", complete) // fails only if there is no such flag
	return cmd
}

// eventKinds are the kinds of events that the help lists. The server checks the flag.
var eventKinds = []string{"acquired", "granted", "released", "force_released", "expired", "queued", "gave_up"}

// parseTime parses a time, or a duration before now. It returns the zero time for "".
func (p *program) parseTime(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := parseDuration(text); err == nil {
		return p.now().Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, usagef("%s %q: want a time such as 2026-01-31T08:00:00Z, or a duration before now, such as 2h",
			flag, text)
	}
	return t, nil
}

// table holds the flags that decide how a list is printed.
type table struct {
	asJSON    bool
	noHeaders bool
	limit     int
}

func (t *table) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&t.asJSON, "json", false, "print the API's JSON, one object per line")
	cmd.Flags().BoolVar(&t.noHeaders, "no-headers", false, "do not print the names of the columns")
	cmd.Flags().Var((*count)(&t.limit), "limit", "maximum `number` of lines (default: all)")
}

// alignedLines is the number of lines that are aligned with each other. So a longer list
// is printed while it is read.
const alignedLines = 1000

// printTable prints a line for each item. It escapes the cells. If there are no items, it
// prints nothing to stdout, and the text empty to stderr of a terminal.
func printTable[T any](
	p *program, t table, items iter.Seq2[T, error], empty string, header []string, cells func(T) []string,
) error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	n := 0
	for item, err := range items {
		if err != nil {
			_ = w.Flush() // the lines before the failure are valid
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
		if n++; n%alignedLines == 0 {
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

// write writes a line of cells. A tabwriter returns errors from Flush only.
func write(w io.Writer, cells ...string) {
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}
