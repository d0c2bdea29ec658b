package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/install/service"
)

func gcCommand(u *ui) *cobra.Command {
	var root string
	c := &cobra.Command{
		Use:     "gc",
		Short:   "Remove untagged content from the registry below ROOT",
		Long:    `All content that is installed, or that rollback can restore, has tags and is kept.`,
		Example: "  oob-bundle registry gc",
		Args:    none,
		RunE:    func(c *cobra.Command, _ []string) error { return u.collect(c.Context(), root) },
	}
	rootFlag(c, &root)
	u.jsonFlag(c)
	return c
}

func (u *ui) collect(ctx context.Context, root string) (err error) {
	if _, err := os.Lstat(root); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w below %s", registry.ErrNothingInstalled, root)
	}
	removed, err := u.operator(root, &targetFlags{}, service.Access{}).Collect(ctx)
	if err != nil {
		return err
	}
	return u.result(removed, func(w io.Writer) {
		fmt.Fprintf(w, "Removed %s, %s\n", count(removed.Blobs, "blob"), human(removed.Bytes))
	})
}
