package bundle

import (
	"io"
)

// WriteFrame writes everything that is not a blob and not padding to w, which
// holds zeros: headers, oci-layout, index.json, the slot and the load list.
// The blobs belong at their members' Data offsets, in any order.
func (g *Geometry) WriteFrame(w io.WriterAt, slot []byte) error {
	content := map[string][]byte{
		NameLayout: []byte(layoutDocument), NameIndex: g.Root, NameSignatures: slot, NameLoadList: g.LoadList,
	}
	for _, m := range g.Members {
		if _, err := w.WriteAt(append(header(m.Name, m.Size), content[m.Name]...), m.Offset); err != nil {
			return err
		}
	}
	return nil
}
