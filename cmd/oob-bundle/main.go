// Command oob-bundle carries container images across an air gap: create makes
// one signed file on a connected workstation, verify and install check it and
// put its content in place on a network that has no other door.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	setUmask()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		cancel(errInterrupted)
		<-signals // the second one does not wait
		os.Exit(130)
	}()
	u := &ui{out: stdout, err: stderr}
	started := false
	root := rootCommand(u)
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !started {
		err = fmt.Errorf("%w; %s --help shows how it is used", usageError{err}, cmd.CommandPath())
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w; run the same command again to continue (%w)", errInterrupted, err)
	}
	if err != nil {
		u.fail(err)
	}
	return exitCode(err)
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
	}
	c.PersistentFlags().BoolVarP(&u.quiet, "quiet", "q", false, "print errors and results only")
	c.AddCommand(
		createCommand(u), verifyCommand(u), installCommand(u), inspectCommand(u), signCommand(u),
		keyCommand(u), trustCommand(u), registryCommand(u), statusCommand(u), versionCommand(u),
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
