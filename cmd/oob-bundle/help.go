package main

// Help texts: what a command is for, then how it looks, then everything else.
// The handbook's pages on commands are the same text. No line is wider than
// helpWidth; texts of commands are filled here, and their examples are written so.

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	// helpWidth is the width of the narrowest terminal that anybody has, in
	// columns.
	helpWidth = 80
	// flagColumn is where the text of a flag begins, in columns.
	flagColumn = 29
)

// The sides, under which the overview lists commands.
const (
	sideConnected = "connected"
	sideIsolated  = "isolated"
	sideBoth      = "both"
)

// setHelp gives a finished tree of commands its help, and words what is wrong with
// a command line.
func setHelp(root *cobra.Command) {
	root.AddGroup(
		&cobra.Group{ID: sideConnected, Title: "On the connected side:"},
		&cobra.Group{ID: sideIsolated, Title: "On the isolated side:"},
		&cobra.Group{ID: sideBoth, Title: "On both:"})
	root.SetCompletionCommandGroupID(sideBoth)
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.InitDefaultVersionFlag()
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), helpText(c)) })
	root.SetFlagErrorFunc(flagError)
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Args, c.RunE = oneOfThese, func(c *cobra.Command, _ []string) error { return c.Help() }
		c.Short, c.Long, c.Example = "Write what a shell needs to complete commands and flags", "", "  source <(oob-bundle completion bash)"
		for _, shell := range c.Commands() {
			shell.Short, shell.Long = "Write it for "+shell.Name(), ""
			shell.Example = map[string]string{
				"bash":       "  source <(oob-bundle completion bash)\n  oob-bundle completion bash >/etc/bash_completion.d/oob-bundle",
				"fish":       "  oob-bundle completion fish | source\n  oob-bundle completion fish >~/.config/fish/completions/oob-bundle.fish",
				"powershell": "  oob-bundle completion powershell | Out-String | Invoke-Expression",
				"zsh":        "  source <(oob-bundle completion zsh)\n  oob-bundle completion zsh >\"${fpath[1]}/_oob-bundle\"",
			}[shell.Name()]
		}
	}
	root.Flags().Lookup("version").Usage = "show the version"
}

// helpCommand is oob-bundle help, which knows what it has no help for.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Show the help of a command",
		GroupID: sideBoth,
		Example: "  oob-bundle help create\n  oob-bundle create --help",
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = wrongUsage("%s has no command %q%s", about.CommandPath(), rest[0], didYouMean("", about.SuggestionsFor(rest[0])))
			}
			if err != nil {
				return err
			}
			return about.Help()
		},
	}
}

// helpText is what --help prints.
func helpText(c *cobra.Command) string {
	c.InitDefaultHelpFlag()
	c.Flags().Lookup("help").Usage = "show this"
	var b strings.Builder
	b.WriteString(c.Short + "\n")
	if c.HasExample() {
		b.WriteString("\nExamples:\n" + strings.TrimRight(c.Example, "\n") + "\n")
	}
	fmt.Fprintf(&b, "\nUsage:\n  %s\n", useLine(c))
	if c.Long != "" {
		b.WriteString("\n" + fill(c.Long, helpWidth))
	}
	b.WriteString(commandList(c))
	b.WriteString("\nFlags:\n" + flagList(c))
	switch {
	case !c.HasParent():
		b.WriteString("\n" + exitHelp())
		fallthrough
	case c.HasAvailableSubCommands():
		fmt.Fprintf(&b, "\nMore: %s COMMAND --help\n", c.CommandPath())
	}
	return b.String()
}

// useLine is how a command is called.
func useLine(c *cobra.Command) string {
	if c.HasAvailableSubCommands() {
		return c.CommandPath() + " COMMAND"
	}
	return c.UseLine()
}

// commandList lists the commands below c, by side where they have one.
func commandList(c *cobra.Command) string {
	var b strings.Builder
	list := func(title, side string) {
		head := "\n" + title + "\n"
		for _, sub := range c.Commands() {
			if sub.GroupID != side || !sub.IsAvailableCommand() && sub.Name() != "help" {
				continue
			}
			b.WriteString(head + hang(fmt.Sprintf("  %-13s", sub.Name()), sub.Short, 16))
			head = ""
		}
	}
	for _, g := range c.Groups() {
		list(g.Title, g.ID)
	}
	list("Commands:", "")
	return b.String()
}

// flagList lists a command's flags, its own and those of all.
func flagList(c *cobra.Command) string {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	all.AddFlagSet(c.LocalFlags())
	all.AddFlagSet(c.InheritedFlags())
	var b strings.Builder
	all.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		what, text := pflag.UnquoteUsage(f)
		if f.NoOptDefVal != "" && what != "" {
			what = "\b[=" + what + "]" // a value is not needed
		}
		short := ""
		if f.Shorthand != "" {
			short = "-" + f.Shorthand + ", "
		}
		switch f.DefValue {
		case "", "0", "false", "[]":
		default:
			text += " (default " + f.DefValue + ")"
		}
		b.WriteString(hang(strings.TrimRight(strings.ReplaceAll(fmt.Sprintf("  %4s--%s %s", short, f.Name, what), " \b", ""), " "), text, flagColumn))
	})
	return b.String()
}

// hang writes text beside what it explains, or below where that is long.
func hang(what, text string, column int) string {
	lines := strings.Split(strings.TrimRight(fill(text, helpWidth-column), "\n"), "\n")
	indent := strings.Repeat(" ", column)
	if len(what) < column {
		what += indent[len(what):]
	} else {
		what += "\n" + indent
	}
	return what + strings.Join(lines, "\n"+indent) + "\n"
}

// fill breaks paragraphs into lines of at most width columns. Lines that begin
// with a space are left as they are.
func fill(text string, width int) string {
	var b strings.Builder
	at := 0 // column
	end := func() {
		if at > 0 {
			b.WriteByte('\n')
		}
		at = 0
	}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if line == "" || line[0] == ' ' || line[0] == '\t' {
			end()
			b.WriteString(line + "\n")
			continue
		}
		for _, word := range strings.Fields(line) {
			switch {
			case at == 0:
			case at+1+len(word) > width:
				end()
			default:
				b.WriteByte(' ')
				at++
			}
			b.WriteString(word)
			at += len(word)
		}
	}
	end()
	return b.String()
}

// flagError words what is wrong with a flag, and names those that are near to one
// that does not exist.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		return fmt.Errorf("%w%s", err, didYouMean("--", nearFlags(c, unknown.GetSpecifiedName())))
	case errors.As(err, &invalid):
		kind := map[string]string{"int": "a whole number", "int64": "a whole number", "duration": "a time, such as 90s or 5m", "bool": "true or false"}[invalid.GetFlag().Value.Type()]
		if kind != "" {
			return fmt.Errorf("--%s %q is not %s", invalid.GetFlag().Name, invalid.GetValue(), kind)
		}
	}
	return err
}

// nearFlags returns the names of flags that are near to one, as cobra finds
// commands.
func nearFlags(c *cobra.Command, name string) []string {
	names := &cobra.Command{SuggestionsMinimumDistance: 2}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	return names.SuggestionsFor(name)
}

// didYouMean is a question, or nothing where nothing is near.
func didYouMean(prefix string, near []string) string {
	if len(near) == 0 {
		return ""
	}
	return "; did you mean " + prefix + strings.Join(near, " or "+prefix) + "?"
}
