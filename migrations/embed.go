// Package migrations holds the database schema as numbered SQL files, one folder per
// dialect with the same numbers and names in both. The store runs those that are missing
// at start, in order and in one transaction. The comments "+goose" mean something only to
// the tests, which make databases of earlier versions as goose made them.
package migrations

import "embed"

//go:embed sqlite/*.sql postgres/*.sql
var FS embed.FS
