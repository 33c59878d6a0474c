package main

import (
	"encoding/json"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"resource-lock-manager/client"
)

func newStatus(p *program) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status NAME",
		Short: "Show who has locked a resource; exit 0 if it is locked, 1 if it is free",
		Long: `Show who has locked a resource, why and since when. The exit code is 0 if the resource is locked,
and 1 if it is free.`,
		Example: `  lockctl status deploy/web
  lockctl status deploy/web --json`,
		Args:              arguments(1, 1),
		ValidArgsFunction: p.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.client(client.Options{})
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case asJSON:
				err = p.printJSON(s)
			default:
				err = p.printStatus(s)
			}
			if err == nil && s.Holder == nil {
				err = &exitError{exitNo, nil}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the API's JSON")
	return cmd
}

// printStatus prints one line for each property.
func (p *program) printStatus(s client.Status) error {
	h := s.Holder
	if h == nil {
		if s.Waiters > 0 {
			return p.printf("%s: free, %d waiting\n", escape(s.Resource), s.Waiters)
		}
		return p.printf("%s: free\n", escape(s.Resource))
	}
	if err := p.printf("%s: locked\n", escape(s.Resource)); err != nil {
		return err
	}
	now := p.serverTime(*h)
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			write(w, "  "+name, value)
		}
	}
	line("holder", escape(h.Owner))
	line("reason", escape(h.Reason))
	line("since", p.timeWithAge(h.LockedAt, now))
	line("expires", p.timeWithAge(h.ExpiresAt, now))
	line("minimum hold until", p.optional(h.MinHoldUntil, now))
	line("released", p.optional(h.ReleasedAt, now))
	line("renewals", strconv.Itoa(h.Renewals))
	line("waiting", strconv.Itoa(s.Waiters))
	line("token", strconv.FormatInt(h.FencingToken, 10))
	if string(h.Metadata) != "null" {
		line("metadata", escape(string(h.Metadata)))
	}
	return w.Flush()
}

// optional is like timeWithAge, but returns "" for the zero time.
func (p *program) optional(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return p.timeWithAge(t, now)
}

func newValidate(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "validate NAME TOKEN",
		Short: "Report whether a fencing token is that of the current hold; exit 0 if it is, 1 if not",
		Long: `Report whether a fencing token is that of the current hold of the resource: print "valid" and exit
0, or print "invalid" and exit 1.`,
		Example:           `  lockctl validate deploy/web "$token"`,
		Args:              arguments(2, 2),
		ValidArgsFunction: p.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := parseToken(args[1:])
			if err != nil {
				return err
			}
			c, err := p.client(client.Options{})
			if err != nil {
				return err
			}
			valid, err := c.Validate(cmd.Context(), args[0], token)
			switch {
			case err != nil:
				return err
			case valid:
				return p.printf("valid\n")
			}
			if err := p.printf("invalid\n"); err != nil {
				return err
			}
			return &exitError{exitNo, nil}
		},
	}
}

// parseToken parses an optional fencing token. It returns 0 if the argument is missing.
// An empty argument is an error: it is probably an unset variable of a script.
func parseToken(args []string) (int64, error) {
	if len(args) == 0 {
		return 0, nil
	}
	token, err := strconv.ParseInt(args[0], 10, 64)
	if err != nil || token <= 0 {
		return 0, usagef("TOKEN %q: want the fencing token of a hold, a whole number above 0", args[0])
	}
	return token, nil
}

// printJSON prints a line of JSON without escaping it for HTML.
func (p *program) printJSON(value any) error {
	encoder := json.NewEncoder(p.out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}
