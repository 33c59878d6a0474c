package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"resource-lock-manager/client"
	"resource-lock-manager/internal/version"
)

// Exit codes, according to sysexits.h and the shell.
const (
	exitNo            = 1  // the answer is no: free, not valid, not locked
	exitUsage         = 64 // wrong usage
	exitUnavailable   = 69 // no server answers
	exitInternal      = 70 // anything else
	exitNotAcquired   = 75 // held by another process
	exitLost          = 76 // the hold has ended
	exitDenied        = 77 // credentials are missing or not sufficient
	exitConfig        = 78 // invalid setting
	exitNotExecutable = 126
	exitNotFound      = 127
	exitInterrupted   = 130
)

// exitError ends the program with a code. A nil cause prints nothing.
type exitError struct {
	code  int
	cause error
}

func (e *exitError) Error() string {
	if e.cause == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.cause.Error()
}

func (e *exitError) Unwrap() error { return e.cause }

// usagef returns a usage error. It is printed with a reference to the help of the
// command.
func usagef(format string, a ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, a...)}
}

// exitCode returns the exit code for an error.
func exitCode(err error) int {
	exit, isExit := errors.AsType[*exitError](err)
	api, isAPI := errors.AsType[*client.APIError](err)
	switch {
	case err == nil:
		return 0
	case isExit:
		return exit.code
	case errors.Is(err, client.ErrLost):
		return exitLost
	case errors.Is(err, client.ErrHeld):
		return exitNotAcquired
	case errors.Is(err, client.ErrUnauthorized), errors.Is(err, client.ErrForbidden):
		return exitDenied
	case errors.Is(err, client.ErrOtherDatabase):
		return exitConfig
	case isAPI && api.Status == http.StatusUnprocessableEntity:
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, client.ErrUnavailable):
		return exitUnavailable
	default:
		return exitInternal
	}
}

// program is the state that the commands share.
type program struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
	now      func() time.Time
	settings settings // read before each command's RunE
	ready    bool     // the command line was parsed
}

// run executes a command line and returns the exit code.
func run(ctx context.Context, args, environ []string, in io.Reader, out, err io.Writer) int {
	p := &program{in: in, out: out, err: err, environ: environ, now: time.Now}
	root := newRoot(p)
	root.SetArgs(append([]string{}, args...)) // not nil, which would mean os.Args
	cmd, failed := root.ExecuteContextC(ctx)
	if failed == nil {
		return 0
	}
	exit, isExit := errors.AsType[*exitError](failed)
	switch {
	case isExit && exit.cause == nil:
	case isExit && exit.code == exitUsage:
		p.say("%v (see %s --help)", failed, cmd.CommandPath())
	case !p.ready: // an error of cobra, which may have lines with suggestions
		text := strings.NewReplacer(
			"\n\nDid you mean this?\n\t", ", did you mean ", "\n\t", " or ",
		).Replace(failed.Error())
		p.say("%s (see %s --help)", strings.TrimSpace(text), cmd.CommandPath())
		return exitUsage
	default:
		p.say("%v", failed)
	}
	return exitCode(failed)
}

// newRoot returns the root command with all commands.
func newRoot(p *program) *cobra.Command {
	var showVersion bool
	root := &cobra.Command{
		Use:   "lockctl",
		Short: "Lock resources by name, and see who has locked them",
		Long: `Lock resources by name, and see who has locked them.

Settings come from flags, then from the environment, then from the file lockctl/config in the
user's configuration directory, which is $XDG_CONFIG_HOME or ~/.config on Linux:

  LOCKCTL_URL         base URL of the lock service, or several, separated by commas
  LOCKCTL_PROCESS_ID  process ID for all commands but run; if unset, USER@HOST
  LOCKCTL_CONFIG      path of another file for the two settings above

Exit codes: 64 wrong usage, 69 no server answers, 70 other failures, 75 locked by another process,
76 the lock is lost, 77 not permitted, 78 invalid setting.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return p.prepare(cmd)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if showVersion {
				return p.printf("lockctl %s\n", version.String())
			}
			cmd.SetOut(p.err)
			_ = cmd.Help()
			return &exitError{exitUsage, nil}
		},
	}
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUsage, err} })
	root.Flags().BoolVar(&showVersion, "version", false, "print the version and exit")
	root.PersistentFlags().StringVar(&p.settings.urls, "url", "",
		"base `URL` of the lock service, or several, separated by commas (default LOCKCTL_URL, else "+defaultURL+")")
	durationVar(root.PersistentFlags(), &p.settings.serverTimeout, "server-timeout", defaultServerTimeout,
		"how long to retry while no server answers; 0s: no limit")
	root.AddCommand(
		newRun(p), newAcquire(p),
		newStatus(p), newList(p), newQueue(p), newHistory(p),
		newRenew(p), newRelease(p), newValidate(p), newForceRelease(p),
		newVersion(p), newMan(p),
	)
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" { // without a shell, cobra would print the help to stdout and succeed
			cmd.RunE = func(*cobra.Command, []string) error {
				return usagef("completion: want bash, zsh, fish or powershell")
			}
		}
	}
	return root
}

// prepare checks the flags and reads the settings, before a command runs.
func (p *program) prepare(cmd *cobra.Command) error {
	for _, check := range []func() error{cmd.ValidateRequiredFlags, cmd.ValidateFlagGroups} {
		if err := check(); err != nil {
			return &exitError{exitUsage, err}
		}
	}
	p.ready = true
	var wrong error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch text := f.Value.String(); {
		case !utf8.ValidString(text):
			wrong = usagef("--%s: %q is not UTF-8", f.Name, text)
		case text == "" && slices.Contains([]string{"process-id", "since", "until"}, f.Name):
			// The value is probably an unset variable of a script.
			wrong = usagef("--%s is empty", f.Name)
		}
	})
	if wrong != nil {
		return wrong
	}
	if isOffline(cmd) {
		return nil
	}
	return p.load(cmd)
}

// isOffline reports whether a command needs no settings, and so works with an invalid
// settings file. Completion reads the settings itself, after it has parsed the flags.
func isOffline(cmd *cobra.Command) bool {
	for cmd.HasParent() && cmd.Parent().HasParent() {
		cmd = cmd.Parent()
	}
	offline := []string{
		"completion", "help", "man", "version", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd,
	}
	return !cmd.HasParent() || slices.Contains(offline, cmd.Name())
}

// getenv returns the value of an environment variable, or "" if it is not set.
func (p *program) getenv(name string) string {
	value := ""
	for _, variable := range p.environ {
		if n, v, _ := strings.Cut(variable, "="); n == name {
			value = v // the last one has precedence
		}
	}
	return value
}

// say prints one line to stderr.
func (p *program) say(format string, a ...any) {
	fmt.Fprintln(p.err, "lockctl: "+escape(fmt.Sprintf(format, a...)))
}

// printf prints to stdout. The caller must escape text that came from the server.
func (p *program) printf(format string, a ...any) error {
	_, err := fmt.Fprintf(p.out, format, a...)
	return err
}

// isTerminal reports whether a stream of the program is a terminal.
func isTerminal(stream any) bool {
	file, is := stream.(*os.File)
	return is && term.IsTerminal(int(file.Fd()))
}

func newVersion(p *program) *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Print the version",
		Example:           "  lockctl version",
		Args:              arguments(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			return p.printf("lockctl %s\n", version.String())
		},
	}
}

// arguments returns a check of the number of arguments and of their encoding. Its errors
// quote the command's Use line.
func arguments(minArgs, maxArgs int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		_, want, _ := strings.Cut(cmd.Use, " ")
		switch {
		case len(args) > maxArgs && maxArgs == 0:
			return usagef("%s takes no arguments, got %q", cmd.Name(), args)
		case len(args) > maxArgs:
			return usagef("%s: unexpected argument %q, want %s", cmd.Name(), args[maxArgs], want)
		case len(args) < minArgs:
			return usagef("%s: want %s", cmd.Name(), want)
		case len(args) > 0 && args[0] == "" && strings.Contains(want, "NAME"):
			// The argument is probably an unset variable of a script.
			return usagef("%s: NAME is empty", cmd.Name())
		}
		for _, arg := range args {
			if !utf8.ValidString(arg) {
				return usagef("%s: the argument %q is not UTF-8", cmd.Name(), arg)
			}
		}
		return nil
	}
}
