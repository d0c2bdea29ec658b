package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/manifests"
)

type lockFlags struct {
	resolveFlags
	output, diff string
}

func lockCommand(u *ui) *cobra.Command {
	var f lockFlags
	c := &cobra.Command{
		Use:   "lock ARCHITECTURE|MANIFEST.yaml",
		Short: "Resolve all references to digests, without fetching layers",
		Long: `lock prints a lock file with the digests and versions that create would use now. With
--diff, it prints the differences from an earlier lock file instead.

lock downloads plugins and charts to read their content, and does not keep them.`,
		Example: `  oob-bundle lock out-of-band -o out-of-band.lock.yaml
  oob-bundle lock out-of-band --diff out-of-band.lock.yaml`,
		Args: needs("ARCHITECTURE|MANIFEST.yaml"),
		RunE: func(c *cobra.Command, args []string) error { return u.lock(c, args[0], f) },
	}
	f.add(c)
	c.Flags().StringVarP(&f.output, "output", "o", "", "`FILE` to write (default standard output)")
	c.Flags().StringVar(&f.diff, "diff", "", "print the differences from this earlier lock `FILE`")
	u.jsonFlag(c)
	return c
}

// lockJSON is the result of lock --json.
type lockJSON struct {
	Lock    string             `json:"lock"` // the document, YAML
	File    string             `json:"file,omitempty"`
	Changes []manifests.Change `json:"changes,omitempty"` // with --diff
}

func (u *ui) lock(c *cobra.Command, manifest string, f lockFlags) error {
	o, err := f.options(c, manifest, u.warn)
	if err != nil {
		return err
	}
	var old *manifests.Lock
	if f.diff != "" {
		if old, err = manifests.ReadLock(f.diff); err != nil {
			return err
		}
		if o.Channel == "" && f.output == "" { // as with create --lock
			o.Channel = old.Channel
		}
	}
	// Beside the output file, because the system's temporary directory may be small.
	dir, err := os.MkdirTemp(filepath.Dir(f.output), ".oob-bundle-lock-")
	if err != nil {
		return err
	}
	l, err := create.Lock(c.Context(), o, dir)
	if err != nil {
		return err
	}
	data, err := l.Encode()
	if err != nil {
		return err
	}
	if f.output != "" {
		if err := disk.WriteFile(f.output, data, 0o644); err != nil {
			return err
		}
	}
	out := lockJSON{Lock: string(data), File: f.output}
	if old != nil {
		out.Changes = manifests.Diff(old, l)
	}
	return u.result(out, func(w io.Writer) {
		switch {
		case old != nil:
			printChanges(w, out.Changes)
		case f.output != "":
			fmt.Fprintf(w, "%s   %s\n", f.output, contents(l))
		default:
			_, _ = w.Write(data) // to memory
		}
	})
}

func printChanges(w io.Writer, changes []manifests.Change) {
	if len(changes) == 0 {
		fmt.Fprintln(w, "no difference")
	}
	for _, c := range changes {
		switch c.Kind {
		case "added":
			fmt.Fprintf(w, "+ %s %s  %s\n", c.What, c.Name, c.To)
		case "removed":
			fmt.Fprintf(w, "- %s %s  %s\n", c.What, c.Name, c.From)
		default:
			fmt.Fprintf(w, "~ %s %s\n    from %s\n    to   %s\n", c.What, c.Name, c.From, c.To)
		}
	}
}
