package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan returns the command that writes the manual pages, for make install and packages.
func newMan(*program) *cobra.Command {
	return &cobra.Command{
		Use:               "man DIR",
		Short:             "Write the manual pages to a directory",
		Example:           "  lockctl man ./man1",
		Hidden:            true,
		Args:              arguments(1, 1),
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil { //nolint:gosec // all users read manual pages
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // no dates: pages of the same version are identical
			header := &doc.GenManHeader{Section: "1", Source: "lockctl", Manual: "Resource Lock Manager"}
			return doc.GenManTree(root, header, args[0])
		},
	}
}
