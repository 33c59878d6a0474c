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
		Short: "Extend a hold",
		Long: `Make a hold expire when --ttl has passed from now. Without TOKEN it renews any hold of the process.
The exit code is 76 if the process does not hold the resource any more.`,
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
				return usagef("--ttl is missing: want the time until the hold expires, such as --ttl 5m")
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
				until := p.timeWithAge(hold.ExpiresAt, p.serverTime(hold))
				p.say("%s: renewed for %s until %s", args[0], hold.Owner, until)
			}
			return nil
		},
	}
	durationVar(cmd.Flags(), &ttl, "ttl", 0, "time until the hold expires, counted from now (required)")
	p.processIDVar(cmd, &owner)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "report the new expiry on stderr")
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
		Long: `End a hold. Without TOKEN it ends any hold of the process. A second release of the same hold
succeeds. The exit code is 76 if the hold was lost before, or never existed.`,
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
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "report the release on stderr")
	return cmd
}

// processIDVar defines the flag --process-id.
func (p *program) processIDVar(cmd *cobra.Command, owner *string) {
	cmd.Flags().StringVar(owner, "process-id", "", "process ID of the request (default "+nameProcessID+", else USER@HOST)")
}

// processID returns the value of --process-id or its default.
func (p *program) processID(flag string) string {
	if flag != "" {
		return flag
	}
	return defaultProcessID(p)
}
