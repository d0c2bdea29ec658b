// Command oob-bundle carries container images, charts, plugins and files across
// an air gap: create makes one signed file on a connected workstation, verify and install check it and
// put its content in place on a network that has no other door.
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
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// memoryLimit is what the collector tries to stay below, in bytes: with the
// program's own pages that is less than 64 MiB, also while the manifests of
// 20,000 layers are read.
const memoryLimit = 36 << 20

// liftMemoryLimit gives up the limit where what is needed comes close to it: the
// collector would do little else than try to keep it. It is called when all of
// the bundle's manifests are in memory.
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
	u := &ui{out: stdout, err: stderr}
	go func() {
		<-signals
		cancel(errInterrupted)
		select { // nobody waits for a slow disk, nor after a second signal
		case <-time.After(patience):
		case <-signals:
		}
		fmt.Fprintf(stderr, "error: %v\n", interruption(nil))
		os.Exit(130)
	}()
	started := false
	root := rootCommand(u)
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !started {
		err = fmt.Errorf("%w; %s --help shows how it is used", usageError{oneLine(err)}, cmd.CommandPath())
	}
	if err != nil && ctx.Err() != nil {
		err = interruption(err)
	}
	if err != nil {
		u.fail(err)
	}
	return exitCode(err)
}

// gcPercent keeps the garbage small: what lives is the shape of a bundle, a few
// hundred bytes a blob, and it is made once.
const gcPercent = 30

// patience is how long an interrupted command may take to put its things in order.
const patience = 900 * time.Millisecond

// interruption says how to go on after a signal. Err is what it broke off, or nil.
func interruption(err error) error {
	again := fmt.Errorf("%w; run the same command again, it goes on where this one stopped", errInterrupted)
	if err == nil || errors.Is(err, errInterrupted) {
		return again
	}
	return fmt.Errorf("%w (%w)", again, err)
}

// oneLine folds cobra's suggestions into the sentence.
func oneLine(err error) error { return errors.New(strings.Join(strings.Fields(err.Error()), " ")) }

// needs wants exactly one argument and says which.
func needs(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s needs one %s, and %d were given", c.CommandPath(), what, len(args))
		}
		return nil
	}
}

// group is a command that only holds others.
func group(use, short string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, SuggestionsMinimumDistance: 2, RunE: func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		hint := ""
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf("; did you mean %s?", near[0])
		}
		return fmt.Errorf("%w: %s has no command %q%s", errUsage, c.CommandPath(), args[0], hint)
	}}
}

// usageError marks what cobra found wrong with the command line.
type usageError struct{ error }

func (usageError) Is(target error) bool { return target == errUsage }

func rootCommand(u *ui) *cobra.Command {
	c := &cobra.Command{
		Use:   "oob-bundle",
		Short: "Carry container images across an air gap in one signed file",
		Long: `oob-bundle carries container images across an air gap in one signed file.

  oob-bundle create app.yaml --key oob.key     on the connected side
  oob-bundle verify FILE --key oob.pub         on the isolated side: nothing is believed before this
  oob-bundle install FILE --key oob.pub        the same, and the images go into a registry there

` + exitHelp(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       buildVersion(),
	}
	c.PersistentFlags().BoolVarP(&u.quiet, "quiet", "q", false, "print errors and results only")
	c.AddCommand(
		createCommand(u), verifyCommand(u), installCommand(u), inspectCommand(u), signCommand(u), lockCommand(u), architecturesCommand(u),
		valuesCommand(u), statusCommand(u), rollbackCommand(u), uninstallCommand(u), repairCommand(u),
		keyCommand(u), trustCommand(u), registryCommand(u), versionCommand(u),
	)
	return c
}

// jsonFlag adds --json to a command.
func (u *ui) jsonFlag(c *cobra.Command) {
	c.Flags().BoolVar(&u.json, "json", false, "print one JSON document on stdout")
}

// defaultRoot is where the isolated side keeps everything.
const defaultRoot = "/var/lib/oob-bundle"

func rootFlag(c *cobra.Command, root *string) {
	c.Flags().StringVar(root, "root", defaultRoot, "directory with registry, trust and state of this host")
}
