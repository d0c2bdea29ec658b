package main

// The help of a command contains a summary, examples, usage, details and flags, in this order.
// The pages in docs/commands are generated from the same texts. No line is wider than helpWidth.

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is the width of a narrow terminal, in columns.
const helpWidth = 80

// helpTemplate is the cobra help template of every command.
const helpTemplate = `{{.Short}}

Examples:
{{.Example}}

Usage:
  {{.UseLine}}
{{with .Long}}
{{.}}
{{end}}{{range $side := .Groups}}
{{.Title}}
{{range $.Commands}}{{if and (eq .GroupID $side.ID) (or .IsAvailableCommand (eq .Name "help"))}}` + helpLine + `{{end}}{{end}}{{end}}` +
	`{{if and .HasAvailableSubCommands (not .Groups)}}
Commands:
{{range .Commands}}{{if .IsAvailableCommand}}` + helpLine + `{{end}}{{end}}{{end}}
Flags:
{{.Flags.FlagUsagesWrapped 80}}`

const helpLine = `  {{rpad .Name .NamePadding}} {{.Short}}
`

// helpEnd is the end of the help of a command with subcommands.
const helpEnd = `
More: {{.CommandPath}} COMMAND --help
`

// IDs of the groups in which the root command's help lists commands.
const (
	sideConnected = "connected"
	sideIsolated  = "isolated"
	sideBoth      = "both"
)

// setHelp sets the help of a complete command tree and the error messages for invalid flags.
func setHelp(root *cobra.Command) {
	root.AddGroup(
		&cobra.Group{ID: sideConnected, Title: "On the connected side:"},
		&cobra.Group{ID: sideIsolated, Title: "On the isolated side:"},
		&cobra.Group{ID: sideBoth, Title: "On both sides:"})
	root.SetCompletionCommandGroupID(sideBoth)
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.SetHelpTemplate(helpTemplate + `{{if not .HasParent}}
` + exitHelp() + `{{end}}{{if .HasAvailableSubCommands}}` + helpEnd + `{{end}}`)
	root.SetFlagErrorFunc(flagError)
	setCompletionHelp(root)
	wrapLong(root)
}

// setCompletionHelp gives cobra's completion commands the same kind of help as the others.
func setCompletionHelp(root *cobra.Command) {
	c, _, err := root.Find([]string{"completion"})
	if err != nil {
		return // cobra added no completion command
	}
	c.Use, c.DisableFlagsInUseLine = "completion COMMAND", true
	c.Args, c.RunE = oneOfThese, func(c *cobra.Command, _ []string) error { return c.Help() }
	c.Long, c.Example = "", "  source <(oob-bundle completion bash)"
	for _, shell := range c.Commands() {
		shell.Long = ""
		shell.Example = map[string]string{
			"bash":       "  source <(oob-bundle completion bash)\n  oob-bundle completion bash >/etc/bash_completion.d/oob-bundle",
			"fish":       "  oob-bundle completion fish | source\n  oob-bundle completion fish >~/.config/fish/completions/oob-bundle.fish",
			"powershell": "  oob-bundle completion powershell | Out-String | Invoke-Expression",
			"zsh":        "  source <(oob-bundle completion zsh)\n  oob-bundle completion zsh >\"${fpath[1]}/_oob-bundle\"",
		}[shell.Name()]
	}
}

// wrapLong wraps the long texts of c and all its subcommands.
func wrapLong(c *cobra.Command) {
	paragraphs := strings.Split(c.Long, "\n\n")
	for k, p := range paragraphs {
		paragraphs[k] = wrap(p, helpWidth, "")
	}
	c.Long = strings.Join(paragraphs, "\n\n")
	for _, sub := range c.Commands() {
		wrapLong(sub)
	}
}

// wrap breaks a paragraph into lines of at most width columns. All lines but the first start
// with indent, which does not count towards width.
func wrap(text string, width int, indent string) string {
	var b strings.Builder
	column := 0
	for k, word := range strings.Fields(text) {
		switch {
		case k == 0:
		case column+1+len(word) > width:
			b.WriteString("\n" + indent)
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}

// helpCommand replaces cobra's help command, which exits with 0 for an unknown command.
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
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// flagError rewords the error of an invalid number, duration or bool flag. For an unknown long
// flag, it adds suggestions.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		return fmt.Errorf("%w%s", err, didYouMean("--", nearFlags(c, unknown.GetSpecifiedName())))
	case errors.As(err, &invalid):
		kind := map[string]string{
			"int": "a whole number", "int64": "a whole number", "duration": "a time, such as 90s or 5m", "bool": "true or false",
		}[invalid.GetFlag().Value.Type()]
		if kind != "" {
			return fmt.Errorf("--%s %q is not %s", invalid.GetFlag().Name, invalid.GetValue(), kind)
		}
	}
	return err
}

// nearFlags returns the flag names similar to name, found by cobra's suggestions for commands.
func nearFlags(c *cobra.Command, name string) []string {
	names := &cobra.Command{SuggestionsMinimumDistance: 2}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	return names.SuggestionsFor(name)
}

// didYouMean returns a suggestion for an error message, or "" if near is empty.
func didYouMean(prefix string, near []string) string {
	if len(near) == 0 {
		return ""
	}
	return "; did you mean " + prefix + strings.Join(near, " or "+prefix) + "?"
}
