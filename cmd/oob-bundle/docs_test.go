package main

import (
	"flag"
	"fmt"
	"strings"
)

var updateDocs = flag.Bool("update", false, "write the generated pages of the handbook anew")

// exitPage is docs/exit-codes.md.
func exitPage() string {
	var b strings.Builder
	b.WriteString("# Exit codes\n\nThey are part of the contract: scripts may rely on them. This page is made from the program's own table.\n\n| code | meaning |\n|---|---|\n")
	for _, line := range strings.Split(strings.TrimSpace(exitHelp()), "\n")[1:] {
		code, meaning, _ := strings.Cut(strings.TrimSpace(line), " ")
		fmt.Fprintf(&b, "| %s | %s |\n", code, strings.TrimSpace(meaning))
	}
	return b.String()
}
