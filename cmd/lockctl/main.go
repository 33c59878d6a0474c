// Command lockctl is the command line client of the lock service. Its settings come from
// flags, the environment and a file: see `lockctl --help`.
package main

import (
	"context"
	"os"
)

// Commands other than run and acquire install no signal handler. The default action ends
// them: a shell then reports 130 for Ctrl-C, and also ends its loops.
func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
