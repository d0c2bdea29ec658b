// Command oob-bundle carries container images, charts, plugins and files across
// an air gap. create writes one signed file on a connected workstation. verify checks the file
// on the isolated network, and install checks it and puts its content in place.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/oob-bundle/oob-bundle/install"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// memoryLimit is the soft limit of the Go runtime, in bytes. With the pages of the executable,
// the process stays below 64 MiB, even while it reads the manifests of 20,000 layers.
const memoryLimit = 36 << 20

// liftMemoryLimit removes the limit if the live heap is close to it; otherwise the program would
// spend most of its time in garbage collection. The caller must have all manifests of the
// bundle in memory.
func liftMemoryLimit() {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if os.Getenv("GOMEMLIMIT") == "" && m.HeapAlloc > memoryLimit*4/5 {
		debug.SetMemoryLimit(math.MaxInt64)
	}
}

func run(args []string, stdout, stderr io.Writer) int {
	setUmask()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	out := newOutput(stdout)
	u := &ui{out: out, err: stderr, passwords: takePasswords()}
	u.patience.Store(int64(patience))
	go func() {
		<-signals
		cancel(errInterrupted)
		wait := time.Duration(u.patience.Load())
		if wait > patience {
			fmt.Fprintln(stderr, "Putting things in order; interrupt again to end at once")
		}
		select { // quit after the timeout or a second signal
		case <-time.After(wait):
		case <-signals:
		}
		fmt.Fprintf(stderr, "error: %v\n", interruption(nil))
		os.Exit(130)
	}()
	started := false
	root := rootCommand(u)
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if err := noEmptyFlags(c); err != nil {
			return err
		}
		started = true
		if printsResult := c.Flags().Lookup("json") != nil; printsResult && out.failed != nil {
			return out.failed
		}
		return nil
	}
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	if err != nil && !started || errors.As(err, &usage) {
		err = usageError{err, cmd.CommandPath()}
	}
	if err != nil && ctx.Err() != nil {
		err = interruption(err)
	}
	if out.failed != nil && (err == nil || errors.Is(err, out.failed)) {
		err = fmt.Errorf("writing to standard output: %v", out.failed) //nolint:errorlint // ENOSPC from stdout must not get exit status 8
	}
	if err != nil {
		u.fail(err)
	}
	return exitCode(err)
}

// gcPercent is the GOGC default. A low value is cheap: the live heap holds only the bundle's
// geometry, a few hundred bytes a blob, and is allocated once.
const gcPercent = 30

// patience is the default time that an interrupted command has to clean up; ui.needsTime
// changes the time.
const patience = 900 * time.Millisecond

// interruption returns the error to report after a signal: errInterrupted with advice how to
// resume. err is the error of the interrupted command, or nil; it is wrapped too.
func interruption(err error) error {
	again := fmt.Errorf("%w; run the same command again, it goes on where this one stopped", errInterrupted)
	if err == nil || errors.Is(err, errInterrupted) {
		return again
	}
	return fmt.Errorf("%w (%w)", again, err)
}

// needs requires exactly one argument; what names it in the error.
func needs(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s needs one %s, and %d were given", c.CommandPath(), what, len(args))
		}
		return nil
	}
}

// atMostOne accepts at most one argument; what names it in the error.
func atMostOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return fmt.Errorf("%s takes one %s at most, and %d were given", c.CommandPath(), what, len(args))
		}
		return nil
	}
}

// none refuses arguments.
func none(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument, and %q was given", c.CommandPath(), args[0])
	}
	return nil
}

// noEmptyFlags refuses a string flag with an empty value, such as "$UNSET" in a script. The
// default (every channel, the registry of this host) is not what the caller meant.
func noEmptyFlags(c *cobra.Command) (err error) {
	c.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.Type() == "string" && f.Value.String() == "" {
			err = fmt.Errorf("--%s has an empty value; give one, or leave the flag away", f.Name)
		}
	})
	return err
}

// group returns a command that only contains subcommands.
func group(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use + " COMMAND", DisableFlagsInUseLine: true, Short: short, SuggestionsMinimumDistance: 2, Args: oneOfThese,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
}

// oneOfThese refuses arguments of a group. If an argument named a subcommand, cobra would have
// run the subcommand instead.
func oneOfThese(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("%s has no command %q%s", c.CommandPath(), args[0], didYouMean("", c.SuggestionsFor(args[0])))
}

// usageError marks an invalid command line. It matches errUsage.
type usageError struct {
	error
	command string // the command path for the hint
}

// wrongUsage returns a usageError without a command; run adds the command.
func wrongUsage(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...), ""}
}

func (e usageError) Unwrap() error      { return e.error }
func (usageError) Is(target error) bool { return target == errUsage }

func rootCommand(u *ui) *cobra.Command {
	c := group("oob-bundle", "Carry container images, charts, plugins and files across an air gap")
	c.Example = `  oob-bundle create app.yaml --key oob.key  # on the connected side
  oob-bundle verify FILE --key oob.pub      # on the isolated side: is it good?
  oob-bundle install FILE --key oob.pub     # the same, and put it in place`
	c.Long = `A bundle is one signed file. The isolated side verifies the signature before it uses any
content of the bundle. To resume an interrupted command, run the same command again.`
	c.SilenceUsage, c.SilenceErrors, c.Version = true, true, buildVersion()
	c.SetOut(u.out) // before cobra adds its own commands, which keep this writer
	c.SetErr(u.err)
	c.PersistentFlags().BoolVarP(&u.quiet, "quiet", "q", false, "print errors and results only")
	add := func(side string, commands ...*cobra.Command) {
		for _, sub := range commands {
			sub.GroupID = side
			c.AddCommand(sub)
		}
	}
	add(sideConnected, architecturesCommand(u), createCommand(u), lockCommand(u), keyCommand(u), signCommand(u))
	add(
		sideIsolated, trustCommand(u), verifyCommand(u), valuesCommand(u), installCommand(u), statusCommand(u),
		rollbackCommand(u), uninstallCommand(u), repairCommand(u), registryCommand(u),
	)
	add(sideBoth, inspectCommand(u), versionCommand(u))
	setHelp(c)
	return c
}

// jsonFlag adds --json to a command.
func (u *ui) jsonFlag(c *cobra.Command) {
	c.Flags().BoolVar(&u.json, "json", false, "print one JSON document on stdout")
}

func rootFlag(c *cobra.Command, root *string) {
	c.Flags().StringVar(root, "root", install.DefaultRoot, "directory `ROOT` with the registry, trusted keys, policy and state of this host")
}
