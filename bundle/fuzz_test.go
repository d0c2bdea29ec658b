package bundle_test

import (
	"bytes"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// FuzzIndex: what is taken is written again as something that is taken and says the same.
func FuzzIndex(f *testing.F) {
	f.Add(worked().index())
	f.Add([]byte(`{"schemaVersion":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, info, err := bundle.ParseIndex(data)
		if err != nil {
			return
		}
		again, info2, err := bundle.ParseIndex(encode(x))
		if err != nil || info.Channel != info2.Channel || !bytes.Equal(encode(x), encode(again)) {
			t.Fatalf("%q became %q: %v", data, encode(x), err)
		}
	})
}

// FuzzSlot: there is one spelling.
func FuzzSlot(f *testing.F) {
	for _, n := range []int{1, 2, 32} {
		slot, err := bundle.EncodeSlot(signatures(n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.TrimRight(slot, "\n"))
	}
	f.Fuzz(func(t *testing.T, lines []byte) {
		if len(lines) > bundle.SlotSize {
			return
		}
		slot := append(bytes.Clone(lines), bytes.Repeat([]byte{'\n'}, bundle.SlotSize-len(lines))...)
		list, err := bundle.ParseSlot(slot)
		if err != nil {
			return
		}
		again, err := bundle.EncodeSlot(list)
		if err != nil || !bytes.Equal(again, slot) {
			t.Fatalf("%q is taken and written as %q", lines, bytes.TrimRight(again, "\n"))
		}
	})
}

// FuzzManifest: no crash, and only sound descriptors come out.
func FuzzManifest(f *testing.F) {
	c := worked()
	for _, d := range c.roots {
		f.Add(c.blobs[d.Digest], false)
	}
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"`+someDigest+`","size":1}]}`), true)
	f.Fuzz(func(t *testing.T, data []byte, index bool) {
		d := bundle.Descriptor{MediaType: bundle.TypeOCIManifest, Digest: bundle.DigestOf(data), Size: int64(len(data))}
		if index {
			d.MediaType = bundle.TypeOCIIndex
		}
		m, err := bundle.ParseManifest(d, data)
		if err != nil {
			return
		}
		for _, c := range m.Children() {
			if _, err := bundle.ParseDigest(string(c.Digest)); err != nil || c.Size < 0 || c.Size > bundle.MaxBlob {
				t.Fatalf("%+v came out of %q", c, data)
			}
		}
	})
}

// FuzzReader: a file that is taken is exactly the one that its root describes.
// The input is a patch to the worked example, which is too large to mutate well.
func FuzzReader(f *testing.F) {
	example := worked().file(f)
	f.Add(uint32(0), []byte{}, uint32(0))
	f.Add(uint32(1536), []byte("{}"), uint32(0))
	f.Add(uint32(124), []byte("77777777777"), uint32(512))
	f.Add(uint32(68608), example[69632:70144], uint32(1))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint32) {
		file := bytes.Clone(example)
		copy(file[int(at)%len(file):], patch)
		file = file[:len(file)-int(cut)%len(file)]
		r, err := read(file)
		if err != nil {
			return
		}
		if _, err := r.Deployment(); err != nil {
			return
		}
		out := memory(make([]byte, r.Size))
		head, err := bundle.ReadHead(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.WriteFrame(out, head.Slot); err != nil {
			t.Fatal(err)
		}
		for _, m := range r.Blobs() {
			copy(out[m.Data:m.Data+m.Size], file[m.Data:])
		}
		if !bytes.Equal(out, file) {
			t.Fatal("another file than the one that was taken")
		}
	})
}

// FuzzReference: what is taken reads the same in full.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"nginx", "a.b:1/c/d:e@" + someDigest, "[::1]:5/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := bundle.ParseReference(s)
		if err != nil {
			return
		}
		again, err := bundle.ParseReference(r.String())
		if err != nil || again != r {
			t.Fatalf("%q is %q, and that is %q: %v", s, r, again, err)
		}
	})
}
