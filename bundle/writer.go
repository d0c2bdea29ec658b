package bundle

import "io"

// WriteFrame writes everything that is not a blob to w: headers, oci-layout, index.json, the
// slot, the load list, the padding and the end. The caller must write the blobs at their
// members' Data offsets, in any order. Frame and blobs together are every byte.
func (g *Geometry) WriteFrame(w io.WriterAt, slot []byte) error {
	content := map[string][]byte{
		NameLayout: []byte(layoutDocument), NameIndex: g.Root, NameSignatures: slot, NameLoadList: g.LoadList,
	}
	var piece []byte // the bytes between two blobs
	var at int64
	for _, m := range g.Members {
		piece = append(piece, header(m.Name, m.Size)...)
		if m.Digest != "" {
			if _, err := w.WriteAt(piece, at); err != nil {
				return err
			}
			piece, at = piece[:0], m.Data+m.Size
		} else {
			piece = append(piece, content[m.Name]...)
		}
		piece = append(piece, make([]byte, padding(m.Size))...)
	}
	_, err := w.WriteAt(append(piece, make([]byte, endSize)...), at)
	return err
}
