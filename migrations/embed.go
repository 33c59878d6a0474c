// Package migrations holds the database schema as numbered SQL files, one folder per dialect with the same numbers and
// names in both. The store runs them at start, in order, each in its own transaction.
package migrations

import "embed"

//go:embed sqlite/*.sql postgres/*.sql
var FS embed.FS
