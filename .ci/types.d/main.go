// Command types type-checks the program and its tests for another platform. It finds what a
// compiler would refuse, without the minutes of compiling all dependencies. Run it in the
// module's directory.
//
// Usage: types GOOS/GOARCH PACKAGE...
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// listed is a package in the output of go list -json.
type listed struct {
	ImportPath, Dir string
	GoFiles         []string
	ImportMap       map[string]string
	Module          *struct{ Main bool }
	Error           *struct{ Err string }
}

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(platform string, packages []string) error {
	system, processor, _ := strings.Cut(platform, "/")
	list := exec.Command("go", append([]string{"list", "-deps", "-test", "-json=ImportPath,Dir,GoFiles,ImportMap,Module,Error", "--"}, packages...)...)
	list.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+processor, "CGO_ENABLED=0")
	list.Stderr = os.Stderr
	out, err := list.StdoutPipe()
	if err != nil {
		return err
	}
	if err := list.Start(); err != nil {
		return err
	}
	known, files, ours := map[string]*types.Package{"unsafe": types.Unsafe}, token.NewFileSet(), 0
	var problems []error
	for packages := json.NewDecoder(out); ; { // dependencies come first
		var p listed
		if err := packages.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if p.Error != nil {
			problems = append(problems, errors.New(p.Error.Err))
		}
		if p.ImportPath == "unsafe" || strings.HasSuffix(p.ImportPath, ".test") {
			continue // go test generates the .test package
		}
		mine := p.Module != nil && p.Module.Main
		var syntax []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			syntax = append(syntax, f)
		}
		check := types.Config{
			IgnoreFuncBodies: !mine, // dependencies are checked for their declarations only
			FakeImportC:      true,
			Sizes:            types.SizesFor("gc", processor),
			Importer:         imports{known, p.ImportMap},
			Error: func(err error) {
				if mine {
					problems = append(problems, err)
				}
			},
		}
		known[p.ImportPath], _ = check.Check(p.ImportPath, files, syntax, nil) // errors are reported to Error
		if mine {
			ours++
		}
	}
	if err := list.Wait(); err != nil {
		return err
	}
	if len(problems) == 0 && ours == 0 {
		return errors.New("no package of this module was looked at")
	}
	fmt.Printf("%s: %d packages of ours, %d in all\n", platform, ours, len(known))
	return errors.Join(problems...)
}

// imports resolves imports from the packages checked so far. Names is the ImportMap of the
// importing package.
type imports struct {
	known map[string]*types.Package
	names map[string]string
}

func (i imports) Import(path string) (*types.Package, error) {
	if name, ok := i.names[path]; ok {
		path = name
	}
	if p := i.known[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s has not been looked at", path)
}
