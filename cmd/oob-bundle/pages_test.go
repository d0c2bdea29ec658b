package main

// This file generates the other files of a release from the program's commands: manual pages,
// completions, the unit, and the licences of linked modules. .ci/pages writes them with
//
//	go test ./cmd/oob-bundle -run '^TestPages$' -pages DIR
//
// The program contains neither the manual pages nor the licences.

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var pagesDir = flag.String("pages", "", "directory to which the pages of a release are written")

// packagedProgram is the path at which a package installs the program.
const packagedProgram = "/usr/bin/oob-bundle"

// TestPages writes the pages and checks that each manual page contains the text of --help.
func TestPages(t *testing.T) {
	dir := *pagesDir
	if dir == "" {
		dir = t.TempDir()
	}
	pages := map[string][]byte{"oob-bundle-registry.service": packagedUnit(t), "copyright": []byte(notices(t))}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		pages[filepath.Join("completions", shell)] = printed(t, "completion", shell)
	}
	date := pageDate(t)
	for _, c := range commands(documented()) {
		page := manual(c, date)
		pages[filepath.Join("man", pageName(c)+".1")] = []byte(page)
		checkManual(t, c, page)
	}
	if n := len(pages); n < 30 {
		t.Errorf("only %d pages were made", n)
	}
	for name, data := range pages {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// printed returns the program's output. It fails the test on an error.
func printed(t *testing.T, args ...string) []byte {
	t.Helper()
	var out, errs bytes.Buffer
	if status := run(args, &out, &errs); status != 0 || out.Len() == 0 {
		t.Fatalf("oob-bundle %v ended with %d: %s", args, status, errs.String())
	}
	return out.Bytes()
}

// packagedUnit returns the output of registry unit for packagedProgram.
func packagedUnit(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	var f serveFlags
	c := &cobra.Command{}
	f.add(c)
	u := &ui{out: &out, err: io.Discard}
	if err := u.unit(c, packagedProgram, f); err != nil {
		t.Fatal(err)
	}
	own := printed(t, "registry", "unit")
	if want := regexp.MustCompile(
		`(?m)^ExecStart=\S+`,
	).ReplaceAll(
		own,
		[]byte("ExecStart="+packagedProgram),
	); !bytes.Equal(
		want, out.Bytes(),
	) {
		t.Errorf("the packaged unit is not the one that is printed:\n%s\n%s", out.Bytes(), own)
	}
	return out.Bytes()
}

// documented returns the whole command tree, including commands that cobra adds.
func documented() *cobra.Command {
	root := rootCommand(&ui{out: io.Discard, err: io.Discard})
	root.InitDefaultCompletionCmd()
	return root
}

// commands returns c and all its subcommands that are not hidden.
func commands(c *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{c}
	for _, sub := range subcommands(c) {
		list = append(list, commands(sub)...)
	}
	return list
}

func subcommands(c *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(c.Commands()), func(s *cobra.Command) bool { return !s.IsAvailableCommand() })
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// pageDate returns the date of SOURCE_DATE_EPOCH, the time of the commit, so that the same
// commit makes the same pages. Without the variable, the date is 1970-01-01.
func pageDate(t *testing.T) string {
	t.Helper()
	epoch, ok := os.LookupEnv("SOURCE_DATE_EPOCH")
	if !ok {
		return "1970-01-01"
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Unix(seconds, 0).UTC().Format(time.DateOnly)
}

// roff escapes text so that groff prints ASCII characters (groff_char(7)). It also escapes a dot
// or an apostrophe at the start of a line, which would be a request.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

// roffText formats help text: paragraphs are filled, and indented lines keep their line breaks.
func roffText(b *strings.Builder, text string) {
	literal, filled := false, true // the heading starts the first paragraph
	begin := func(want bool) {
		if literal != want {
			literal = want
			b.WriteString(map[bool]string{true: ".RS 2\n.nf\n", false: ".fi\n.RE\n"}[want])
		}
	}
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		indented := strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t")
		switch {
		case strings.TrimSpace(line) == "":
			filled = false
		case indented:
			if !literal && !filled {
				b.WriteString(".PP\n")
			}
			begin(true)
			filled = true
			fmt.Fprintln(b, roff(strings.TrimSpace(line)))
		default:
			begin(false)
			if !filled {
				b.WriteString(".PP\n")
			}
			filled = true
			fmt.Fprintln(b, roff(line))
		}
	}
	begin(false)
}

// manual returns the manual page of a command in the man(7) language.
func manual(c *cobra.Command, date string) string {
	c.InitDefaultHelpFlag()
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 %s oob\\-bundle \"\"\n.nh\n.ad l\n", roff(strings.ToUpper(pageName(c))), date)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(c)), roff(c.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n\\fB%s\\fR%s\n", roff(c.CommandPath()), synopsis(c))
	b.WriteString(".SH DESCRIPTION\n")
	long, _, _ := strings.Cut(c.Long, exitHelp()) // has a separate section
	if long == "" {
		long = c.Short + "."
	}
	roffText(&b, long)
	if list := subcommands(c); len(list) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, s := range list {
			fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", roff(pageName(s)), roff(s.Short))
		}
	}
	b.WriteString(".SH OPTIONS\n")
	c.LocalFlags().VisitAll(func(f *pflag.Flag) { option(&b, f) })
	c.InheritedFlags().VisitAll(func(f *pflag.Flag) { option(&b, f) })
	b.WriteString(".SH EXIT STATUS\n")
	if !c.HasParent() {
		for _, line := range strings.Split(strings.TrimSpace(exitHelp()), "\n")[1:] {
			code, meaning, _ := strings.Cut(strings.TrimSpace(line), " ")
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fR\n%s\n", code, roff(strings.TrimSpace(meaning)))
		}
	} else {
		b.WriteString("The same for all commands; see\n.BR oob\\-bundle (1).\n")
	}
	if c.Example != "" {
		b.WriteString(".SH EXAMPLES\n")
		roffText(&b, c.Example)
	}
	if c.HasParent() {
		fmt.Fprintf(&b, ".SH SEE ALSO\n.BR %s (1)\n", roff(pageName(c.Parent())))
	}
	return b.String()
}

// synopsis returns the use line without the names of the commands.
func synopsis(c *cobra.Command) string {
	_, arguments, _ := strings.Cut(c.Use, " ")
	if c.HasAvailableSubCommands() {
		arguments = "COMMAND"
	}
	if arguments != "" {
		arguments = ` \fI` + roff(arguments) + `\fR`
	}
	return arguments + ` [\fIflags\fR]`
}

// option writes a flag, its argument and its default as in --help.
func option(b *strings.Builder, f *pflag.Flag) {
	if f.Hidden {
		return
	}
	b.WriteString(".TP\n")
	if f.Shorthand != "" {
		fmt.Fprintf(b, "\\fB\\-%s\\fR, ", f.Shorthand)
	}
	fmt.Fprintf(b, "\\fB%s\\fR", roff("--"+f.Name))
	kind, _ := pflag.UnquoteUsage(f)
	if kind != "" {
		fmt.Fprintf(b, " \\fI%s\\fR", roff(kind))
	}
	if f.Value.Type() == "string" && f.NoOptDefVal != "" {
		fmt.Fprintf(b, "[=%s]", roff(strconv.Quote(f.NoOptDefVal)))
	}
	fmt.Fprintf(b, "\n%s\n", roff(usageOf(f)))
}

// usageOf returns the text of --help about a flag, including the default.
func usageOf(f *pflag.Flag) string {
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	set.AddFlag(f)
	_, usage := pflag.UnquoteUsage(f)
	_, rest, _ := strings.Cut(set.FlagUsages(), usage)
	return usage + strings.TrimRight(rest, "\n")
}

// plainPage removes escapes, requests and fonts from a page.
func plainPage(page string) string {
	page = regexp.MustCompile(`(?m)^\.(TP|nf|fi|PP|nh|ad l|R[SE].*)\n|^\.(BR|SH|TH) |\\f[BIR]|\\&`).ReplaceAllString(page, "")
	page = strings.NewReplacer(`\e`, `\`, `\-`, "-", `\(aq`, "'", `\(ga`, "`", `\(ha`, "^", `\(ti`, "~").Replace(page)
	return strings.Join(strings.Fields(page), " ")
}

// checkManual checks that the page of a command contains the text of --help.
func checkManual(t *testing.T, c *cobra.Command, page string) {
	t.Helper()
	plain := plainPage(page)
	wants := []string{c.Short, c.Long, c.Example}
	long, exit, ok := strings.Cut(c.Long, "Exit status:")
	if ok {
		wants = append(wants[:1], long)
		wants = append(wants, strings.Split(strings.TrimSpace(exit), "\n")...)
	}
	flags := 0
	for _, line := range strings.Split(c.LocalFlags().FlagUsages()+c.InheritedFlags().FlagUsages(), "\n") {
		if strings.TrimSpace(line) != "" {
			wants = append(wants, line)
			flags++
		}
	}
	if flags == 0 {
		t.Errorf("%s has no flags at all", c.CommandPath())
	}
	for _, want := range wants {
		if want = strings.Join(strings.Fields(want), " "); !strings.Contains(plain, want) {
			t.Errorf("%s --help says what its page does not: %s", c.CommandPath(), want)
		}
	}
	for _, line := range strings.Split(page, "\n") {
		if strings.HasPrefix(line, "'") || strings.HasSuffix(line, " ") {
			t.Errorf("%s: the line %q is not what it should be", pageName(c), line)
		}
	}
}
