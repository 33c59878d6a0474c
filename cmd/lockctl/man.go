package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan is for packages.
func newMan(*program) *cobra.Command {
	return &cobra.Command{
		Use:               "man DIR",
		Short:             "Write the manual pages to a folder",
		Example:           "  lockctl man ./man1",
		Hidden:            true,
		Args:              arguments(1, 1),
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil { //nolint:gosec // manual pages are for everybody
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // no dates, so that pages of the same version are the same
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "lockctl", Manual: "Resource Lock Manager"}, args[0])
		},
	}
}
