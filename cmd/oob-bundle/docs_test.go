package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
	"github.com/oob-bundle/oob-bundle/install/operate"
	"github.com/oob-bundle/oob-bundle/verify"
)

var updateDocs = flag.Bool("update", false, "write the generated pages of the handbook anew")

// regenerate is the command that writes the generated pages.
const regenerate = "go test ./cmd/oob-bundle -run Handbook -update"

// explained returns every command with a help page, including cobra's commands. Parents come
// before their children.
func explained() []*cobra.Command {
	var all []*cobra.Command
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		all = append(all, c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(rootCommand(&ui{out: io.Discard, err: io.Discard}))
	return all
}

// helpText returns the output of --help.
func helpText(c *cobra.Command) string {
	var b strings.Builder
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	c.SetOut(&b)
	if err := c.Help(); err != nil {
		return err.Error()
	}
	return b.String()
}

// TestHelp checks the order and the width of help texts.
func TestHelp(t *testing.T) {
	if n := len(explained()); n < 25 {
		t.Errorf("%d commands", n)
	}
	for _, c := range explained() {
		text := helpText(c)
		if !strings.HasPrefix(text, c.Short+"\n\nExamples:\n  "+c.Example[2:]+"\n\nUsage:\n") || !strings.Contains(c.Example, "oob-bundle") {
			t.Errorf("%s: the help does not begin with what it is for and an example:\n%s", c.CommandPath(), text)
		}
		for _, line := range strings.Split(text, "\n") {
			if len([]rune(line)) > helpWidth || strings.HasSuffix(line, " ") {
				t.Errorf("%s: %d columns, or a space at the end: %q", c.CommandPath(), len([]rune(line)), line)
			}
		}
		if strings.Contains(text, "stringArray") || strings.Contains(text, " string ") {
			t.Errorf("%s: a flag's value has no name:\n%s", c.CommandPath(), text)
		}
	}
}

// TestHandbook compares the generated pages of docs with the program's help and tables.
func TestHandbook(t *testing.T) {
	pages := map[string]string{"exit-codes.md": exitPage(), "errors.md": errorPage(t)}
	for _, c := range explained() {
		if c.HasParent() && c.Parent().Name() == "completion" { // one page for all shells
			continue
		}
		if _, ok := pages[commandPage(c)]; ok {
			t.Errorf("two commands have the page %s", commandPage(c))
		}
		pages[commandPage(c)] = commandText(c)
	}
	dir := filepath.Join("..", "..", "docs")
	found, err := filepath.Glob(filepath.Join(dir, "commands", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		name := "commands/" + filepath.Base(f)
		if _, ok := pages[name]; ok {
			continue
		}
		if *updateDocs {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
			continue
		}
		t.Errorf("docs/%s is of no command (%s)", name, regenerate)
	}
	for name, text := range pages {
		path := filepath.Join(dir, name)
		if *updateDocs {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if page, err := os.ReadFile(path); err != nil || string(page) != text {
			t.Errorf("docs/%s is not what the program says (%s): %v", name, regenerate, err)
		}
	}
}

// exitPage returns the text of docs/exit-codes.md.
func exitPage() string {
	var b strings.Builder
	b.WriteString(
		"# Exit codes\n\nThey are part of the contract: scripts may rely on them. This page is made from the program's own " +
			"table.\n\n| code | meaning |\n|---|---|\n",
	)
	for _, s := range exitRows() {
		fmt.Fprintf(&b, "| %d | %s |\n", s.code, s.meaning)
	}
	b.WriteString("\nWhat messages say under each: [errors](errors.md). What to do about each: [recovery](recovery.md).\n")
	return b.String()
}

// commandPage returns the path of a command's page below docs.
func commandPage(c *cobra.Command) string {
	if !c.HasParent() {
		return "commands/README.md"
	}
	_, name, _ := strings.Cut(c.CommandPath(), " ")
	return "commands/" + strings.ReplaceAll(name, " ", "-") + ".md"
}

// commandText returns the page of a command.
func commandText(c *cobra.Command) string {
	helpText(c) // adds --help and the inherited flags
	var b strings.Builder
	fmt.Fprintf(
		&b,
		"# %s\n\n%s.\n\n```sh\n%s\n```\n\n",
		c.CommandPath(), c.Short, strings.ReplaceAll(strings.TrimRight(c.Example[2:], "\n"), "\n  ", "\n"),
	)
	fmt.Fprintf(&b, "Usage: `%s`\n", c.UseLine())
	if c.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", c.Long)
	}
	for _, g := range c.Groups() {
		fmt.Fprintf(&b, "\n## %s\n\n", strings.TrimSuffix(g.Title, ":"))
		linkList(&b, c, g.ID)
	}
	if c.HasParent() && c.HasAvailableSubCommands() {
		b.WriteString("\n## Commands\n\n")
		linkList(&b, c, "")
	}
	fmt.Fprintf(&b, "\n## Flags\n\n```\n%s```\n", c.Flags().FlagUsagesWrapped(helpWidth))
	if c.HasParent() {
		b.WriteString("\n[All commands](README.md) · [exit codes](../exit-codes.md)\n")
	} else {
		b.WriteString("\nThese pages are made from the program's own help. [Exit codes](../exit-codes.md).\n")
	}
	return b.String()
}

// linkList writes the subcommands of c in a group, with links to their pages.
func linkList(b *strings.Builder, c *cobra.Command, side string) {
	for _, sub := range c.Commands() {
		if sub.GroupID != side {
			continue
		}
		if c.Name() == "completion" { // its subcommands have no pages
			fmt.Fprintf(b, "- `%s`: %s\n", sub.CommandPath(), sub.Short)
			continue
		}
		fmt.Fprintf(b, "- [%s](%s): %s\n", sub.CommandPath(), strings.TrimPrefix(commandPage(sub), "commands/"), sub.Short)
	}
}

// errorPage returns the text of docs/errors.md: the errors of exitTable and their hints. It
// also checks their exit codes.
func errorPage(t *testing.T) string {
	dir := t.TempDir()
	more := examples(t, dir)
	var b strings.Builder
	b.WriteString("# Errors\n\nAn error is one sentence on standard error that begins with `error:`; where there is advice it follows,\n" +
		"indented. In the sentence stands one of the texts below, which decides the exit status: the first row that\n" +
		"fits, from the top. This page is made by the program's own table and its own advice. What to do in full:\n[recovery](recovery.md).\n")
	for _, s := range exitTable() {
		if len(s.errors) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n## %d: %s\n\n| the message says | advice |\n|---|---|\n", s.code, s.meaning)
		seen := map[string]bool{} // two packages may use the same text
		var kinds []example
		for _, e := range s.errors {
			if errors.Is(e, errUsage) { // a marker, never shown
				continue
			}
			kinds = append(kinds, plain(e))
		}
		for _, e := range append(kinds, more[s.code]...) {
			if got := exitCode(e.err); got != s.code {
				t.Errorf("%q exits %d, not %d", e.err, got, s.code)
			}
			if !seen[e.says] {
				fmt.Fprintf(&b, "| %s | %s |\n", e.says, strings.ReplaceAll(hint(e.err), dir+string(filepath.Separator), ""))
			}
			seen[e.says] = true
		}
	}
	b.WriteString(
		"\n## 1: a failure not listed below\n\nEverything else: among it `status --check` that finds a difference, and a " +
			"release that does not come up.\n",
	)
	return b.String()
}

// example is an error as commands wrap it, with its text on the page.
type example struct {
	says string
	err  error
}

// plain returns the example of an error from exitTable: about a file for a file system error,
// about a bundle otherwise.
func plain(err error) example {
	var errno syscall.Errno
	if errors.As(err, &errno) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		err = &fs.PathError{Op: "open", Path: "FILE", Err: err}
		return example{plainText(err), err}
	}
	return example{err.Error(), operate.OfBundle("FILE", err)}
}

// examples returns, by exit status, errors with a more specific hint than their kind has.
func examples(t *testing.T, dir string) map[int][]example {
	t.Helper()
	torn := filepath.Join(dir, "FILE")
	if err := os.WriteFile(sign.SlotFile(torn), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer s.Close()
	client, err := remote.New(remote.Options{PlainHTTP: []string{strings.TrimPrefix(s.URL, "http://")}})
	if err != nil {
		t.Fatal(err)
	}
	page, err := client.Page(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, denied := page.Read(t.Context(), 1)
	return map[int][]example{
		2: {{"(what is wrong with the command or its flags)", usageError{errors.New("x"), "oob-bundle COMMAND"}}},
		4: {{bundle.ErrSignature.Error() + ", and FILE.slot is there", operate.OfBundle(torn, bundle.ErrSignature)}, plain(verify.ErrNoKeys)},
		7: {{remote.ErrRegistry.Error() + ", and it is the target that refuses a push", &operate.RegistryError{Err: denied}}},
	}
}

// TestLinks checks that links from the pages to files of this repository are not broken.
func TestLinks(t *testing.T) {
	top := filepath.Join("..", "..")
	pages := []string{filepath.Join(top, "README.md")}
	err := filepath.WalkDir(filepath.Join(top, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			pages = append(pages, path)
		}
		return err
	})
	if err != nil || len(pages) < 50 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

// TestEvidence checks that every test that the handbook names as evidence exists.
func TestEvidence(t *testing.T) {
	have := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
			have[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, p := range pages {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("`(Test[A-Z]\\w*)`").FindAllSubmatch(text, -1) {
			named++
			if !have[string(m[1])] {
				t.Errorf("%s names %s, and there is no such test", p, m[1])
			}
		}
	}
	if named < 60 {
		t.Errorf("only %d tests are named", named)
	}
}
