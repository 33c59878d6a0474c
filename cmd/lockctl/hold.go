package main

import (
	"time"

	"github.com/spf13/cobra"

	"resource-lock-manager/client"
)

func newRenew(p *program) *cobra.Command {
	var (
		ttl     time.Duration
		owner   string
		verbose bool
		asJSON  bool
	)
	cmd := &cobra.Command{
		Use:   "renew NAME [TOKEN]",
		Short: "Have a hold expire later",
		Long: `Have a hold expire when the time of --ttl has passed from now. Without TOKEN it is whichever hold
the process has. The exit code is 76 if the process does not hold the resource any more.`,
		Example: `  lockctl renew deploy/web --ttl 5m
  lockctl renew deploy/web "$token" --ttl 90s`,
		Args:              arguments(1, 2),
		ValidArgsFunction: p.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := parseToken(args[1:])
			switch {
			case err != nil:
				return err
			case ttl == 0:
				return usagef("--ttl is missing: want how long the hold lasts from now, such as --ttl 5m")
			}
			c, err := p.client(client.Options{})
			if err != nil {
				return err
			}
			hold, err := c.Renew(cmd.Context(), args[0], p.processID(owner), token, ttl)
			switch {
			case err != nil:
				return err
			case asJSON:
				return p.printJSON(hold)
			case verbose:
				p.say("%s: renewed for %s until %s", args[0], hold.Owner, p.both(hold.ExpiresAt, p.serverTime(hold)))
			}
			return nil
		},
	}
	durationVar(cmd.Flags(), &ttl, "ttl", 0, "how long the hold lasts from now (required)")
	p.processIDVar(cmd, &owner)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "say on stderr until when")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the API's JSON")
	return cmd
}

func newRelease(p *program) *cobra.Command {
	var (
		owner   string
		verbose bool
	)
	cmd := &cobra.Command{
		Use:   "release NAME [TOKEN]",
		Short: "End a hold",
		Long: `End a hold. Without TOKEN it is whichever hold the process has. To release twice is no error. The
exit code is 76 if the hold had been lost before, or never was.`,
		Example:           `  lockctl release deploy/web`,
		Args:              arguments(1, 2),
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
			if err := c.Release(cmd.Context(), args[0], p.processID(owner), token); err != nil {
				return err
			}
			if verbose {
				p.say("%s: released by %s", args[0], p.processID(owner))
			}
			return nil
		},
	}
	p.processIDVar(cmd, &owner)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "say on stderr that it was released")
	return cmd
}

// processIDVar defines the flag for who asks.
func (p *program) processIDVar(cmd *cobra.Command, owner *string) {
	cmd.Flags().StringVar(owner, "process-id", "", "who asks (default "+nameProcessID+", else USER@HOST)")
}

// processID is who asks: the flag, if it was given.
func (p *program) processID(flag string) string {
	if flag != "" {
		return flag
	}
	return defaultProcessID(p)
}
