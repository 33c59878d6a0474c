package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"resource-lock-manager/client"
)

const (
	completionTime = time.Second
	maxCompletions = 100
)

// completeName completes the first argument with the names of locked resources. If no
// server answers, it returns no names: an error would disturb the line that the user
// types.
func (p *program) completeName(
	cmd *cobra.Command, args []string, typed string,
) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 || p.load(cmd) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	p.settings.serverTimeout = completionTime
	c, err := p.client(client.Options{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	var names []cobra.Completion
	for hold, err := range c.Locks(ctx, client.ListOptions{Prefix: typed, Limit: maxCompletions}) {
		if err != nil {
			break
		}
		if hold.Resource == escape(hold.Resource) { // other names cannot be typed, and would break the list
			names = append(names, hold.Resource)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
