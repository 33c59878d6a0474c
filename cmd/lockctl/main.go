// Command lockctl is the command line of the lock service. Its settings come from flags,
// the environment and a file: see `lockctl --help`.
package main

import (
	"context"
	"os"
)

// Single verbs install no handler for signals: the default action ends them, which a
// shell reports as 130 for Ctrl-C, and which also ends the shell's loops.
func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
