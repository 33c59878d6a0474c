package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"resource-lock-manager/client"
)

func newForceRelease(p *program) *cobra.Command {
	var (
		reason string
		owner  string
		yes    bool
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "force-release NAME --reason TEXT",
		Short: "End a hold of another process",
		Long: `End a hold of another process, which may still be at work. The command first shows the holder. On a
terminal it asks for confirmation; otherwise it needs --yes. It ends only the hold that it has
shown. The exit code is 1 if there is no hold, or if the answer is not yes.`,
		Example:           `  lockctl force-release deploy/web --reason "the runner has died" --yes`,
		Args:              arguments(1, 1),
		ValidArgsFunction: p.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case reason == "":
				return usagef("--reason is missing: want the reason for the history, such as --reason 'the runner has died'")
			case !yes && !isTerminal(p.in):
				return usagef("--yes is missing: there is no terminal to ask for confirmation")
			}
			c, err := p.client(client.Options{})
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case s.Holder == nil:
				return &exitError{exitNo, fmt.Errorf("%s is not locked", args[0])}
			}
			p.say("%s", p.describe(s))
			if !yes && !p.confirm("Force-release this lock? [y/N] ") {
				return &exitError{exitNo, errors.New("nothing was changed")}
			}
			o := client.ForceReleaseOptions{Reason: reason, By: p.processID(owner), FencingToken: s.Holder.FencingToken}
			hold, err := c.ForceRelease(cmd.Context(), args[0], o)
			if api, is := errors.AsType[*client.APIError](err); is && api.Status == http.StatusNotFound && api.Code != "" {
				return &exitError{exitNo, fmt.Errorf("%s: the hold of %s had ended before; nothing was changed",
					args[0], s.Holder.Owner)}
			}
			switch {
			case err != nil:
				return err
			case asJSON:
				return p.printJSON(hold)
			}
			return p.printf("%s: force-released\n", escape(args[0]))
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "reason for the history and for the holder (required)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask for confirmation")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the API's JSON of the hold that was ended")
	p.processIDVar(cmd, &owner)
	return cmd
}

// describe describes the holder in one line.
func (p *program) describe(s client.Status) string {
	h := s.Holder
	now := p.serverTime(*h)
	text := fmt.Sprintf("%s: locked by %s since %s", s.Resource, h.Owner, p.timeWithAge(h.LockedAt, now))
	if h.Reason != "" {
		text += fmt.Sprintf(", %q", h.Reason)
	}
	return fmt.Sprintf("%s; expires %s; %d waiting", text, p.timeWithAge(h.ExpiresAt, now), s.Waiters)
}

// confirm asks on the terminal. It reports whether the answer is y or yes.
func (p *program) confirm(question string) bool {
	fmt.Fprint(p.err, question)
	line, err := bufio.NewReader(p.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}
