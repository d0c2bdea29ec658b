package bundle_test

import (
	"fmt"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// row formats a member like the table in the package comment.
func row(m bundle.Member) string {
	name := m.Name
	if m.Digest != "" {
		name = "blobs/sha256/" + m.Digest.Hex()[:8] + "…"
	}
	return fmt.Sprintf("//\t%5d  %5d  %5d  %s\n", m.Offset, m.Data, m.Size, name)
}
