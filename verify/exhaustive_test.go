package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
	"github.com/oob-bundle/oob-bundle/verify"
)

// refusedAsDamaged reports whether err has exit class 3 or 4.
func refusedAsDamaged(err error) bool {
	return errors.Is(err, bundle.ErrFormat) || errors.Is(err, bundle.ErrDigest) || errors.Is(err, bundle.ErrLimit) ||
		errors.Is(err, bundle.ErrSignature)
}

// each calls f for 0 to n-1 on all processors. Each worker has its own copy of the file.
func each(t *testing.T, file []byte, n int, f func(mine []byte, i int) error) {
	t.Helper()
	var next atomic.Int64
	var g errgroup.Group
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			mine := bytes.Clone(file)
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(mine, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// change changes one byte, requires that the file is refused, and restores the byte.
func change(file []byte, at int, to byte, policy verify.Policy) error {
	was := file[at]
	file[at] = to
	defer func() { file[at] = was }()
	if err := check(file, policy); !refusedAsDamaged(err) {
		return fmt.Errorf("byte %d: %#02x became %#02x: %w", at, was, to, err)
	}
	return nil
}

// ofLength signs until the DER signature has the given length in bytes.
func ofLength(t *testing.T, file []byte, key *world.Key, length int) []byte {
	t.Helper()
	for {
		file = addSignatures(t, file, key)
		head, err := bundle.ReadHead(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		list, err := bundle.ParseSlot(head.Slot)
		if err != nil {
			t.Fatal(err)
		}
		if len(list[0].Bytes) == length {
			return file
		}
	}
}

// TestEveryByte changes every byte of a bundle: each bit outside the slot, and all 255 other
// values inside it, with signatures of each usual length. Without -exhaustive, it changes one
// bit per byte outside the slot and single bits inside it, and tries all values only with the
// longest signature.
func TestEveryByte(t *testing.T) {
	key := world.NewKey(t)
	policy := trusting(key)
	file := world.Small(t, key)
	head, err := bundle.ReadHead(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	slot := int(head.SlotOffset())
	var changed atomic.Int64
	each(t, file, len(file), func(mine []byte, at int) error {
		if at >= slot && at < slot+bundle.SlotSize {
			return nil
		}
		for bit := range 8 {
			if !*exhaustive && bit != at%8 {
				continue
			}
			changed.Add(1)
			if err := change(mine, at, mine[at]^1<<bit, policy); err != nil {
				return err
			}
		}
		return nil
	})
	for _, length := range []int{70, 71, 72} {
		file := ofLength(t, file, key, length)
		line := bytes.IndexByte(file[slot:], '\n') + 1
		each(t, file, line, func(mine []byte, i int) error {
			for v := 1; v < 256; v++ {
				if v&(v-1) != 0 && !*exhaustive && (length < 72 || testing.Short()) {
					continue
				}
				changed.Add(1)
				if err := change(mine, slot+i, mine[slot+i]^byte(v), policy); err != nil {
					return err
				}
			}
			return nil
		})
		// In the padding, one value per byte is verified completely; other values are only
		// parsed as a slot.
		each(t, file, bundle.SlotSize-line, func(mine []byte, i int) error {
			if length == 72 {
				if err := changePadding(mine, slot, line+i, &changed); err != nil {
					return fmt.Errorf("byte %d of the padding, %w", i, err)
				}
			}
			at := slot + line + i
			return change(mine, at, mine[at]^0x20, policy)
		})
	}
	if err := check(file, policy); err != nil {
		t.Fatalf("the unchanged file: %v", err)
	}
	t.Logf("%d changes in %d bytes, all refused", changed.Load(), len(file))
}

// changePadding changes a byte of the slot's padding to another value, or with -exhaustive to
// all others. It returns an error if one of them is accepted.
func changePadding(file []byte, slot, i int, changed *atomic.Int64) error {
	at := slot + i
	for v := 1; v < 256; v++ {
		if v > 1 && !*exhaustive {
			break
		}
		changed.Add(1)
		file[at] ^= byte(v)
		_, err := bundle.ParseSlot(file[slot : slot+bundle.SlotSize])
		file[at] ^= byte(v)
		if !errors.Is(err, bundle.ErrSignature) {
			return fmt.Errorf("changed by %#02x: %w", v, err)
		}
	}
	return nil
}

// TestEveryCut cuts a bundle at every offset.
func TestEveryCut(t *testing.T) {
	key := world.NewKey(t)
	policy := trusting(key)
	file := world.Small(t, key)
	each(t, file, len(file), func(mine []byte, n int) error {
		if err := check(mine[:n], policy); !errors.Is(err, bundle.ErrFormat) {
			return fmt.Errorf("cut to %d bytes: %w", n, err)
		}
		return nil
	})
}

// TestAppended appends bytes of every value, in lengths up to 10,240.
func TestAppended(t *testing.T) {
	key := world.NewKey(t)
	file := world.Small(t, key)
	for v := range 256 {
		for _, n := range []int{1, 511, 512, 1024, 10240} {
			longer := append(bytes.Clone(file), bytes.Repeat([]byte{byte(v)}, n)...)
			if err := check(longer, trusting(key)); !errors.Is(err, bundle.ErrFormat) {
				t.Fatalf("%d times %#02x appended: %v", n, v, err)
			}
		}
	}
}

// TestMixed combines the head and the rest of two bundles signed by the same key.
func TestMixed(t *testing.T) {
	key := world.NewKey(t)
	a, b := world.Small(t, key), world.Small(t, key)
	head, err := bundle.ReadHead(bytes.NewReader(a), int64(len(a)))
	if err != nil {
		t.Fatal(err)
	}
	cut := head.SlotOffset()
	for name, file := range map[string][]byte{
		"root of one, signature of the other": append(bytes.Clone(a[:cut]), b[cut:]...),
		"head of one, blobs of the other":     append(bytes.Clone(a[:cut+bundle.SlotSize]), b[cut+bundle.SlotSize:]...),
	} {
		if bytes.Equal(file, a) || bytes.Equal(file, b) {
			t.Fatal("the two bundles are the same")
		}
		if err := check(file, trusting(key)); !refusedAsDamaged(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCancelled checks that a cancelled verification returns the cause as an error.
func TestCancelled(t *testing.T) {
	key := world.NewKey(t)
	file := world.Small(t, key)
	v, err := verify.Open(context.Background(), bytes.NewReader(file), int64(len(file)), trusting(key))
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("somebody pressed a key")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	if err := v.Payload(ctx, bundle.Watch{}); !errors.Is(err, cause) {
		t.Errorf("payload: %v", err)
	}
	if _, err := verify.Open(ctx, bytes.NewReader(file), int64(len(file)), trusting(key)); !errors.Is(err, cause) {
		t.Errorf("open: %v", err)
	}
}

// sparse is a file that is zero except in a few ranges.
type sparse struct {
	at   map[int64][]byte
	size int64
}

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), max(s.size-off, 0)))
	clear(p[:n])
	for at, data := range s.at {
		if from := max(at, off); from < min(at+int64(len(data)), off+int64(n)) {
			copy(p[from-off:n], data[from-at:])
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s sparse) WriteAt(p []byte, off int64) (int, error) {
	s.at[off] = bytes.Clone(p)
	return len(p), nil
}

// TestLargeBlob verifies a bundle with a blob of more than 8 GiB of zeros, and detects a
// changed bit at its end.
func TestLargeBlob(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes 16 GiB")
	}
	const size, digest = 8<<30 + 4096, "sha256:bd0081473232a4f7d35db8ad2e3f5626ff9d57aa618a9a23e58b234943e3e418"
	key := world.NewKey(t)
	config := []byte("{}")
	layer := bundle.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: digest, Size: size}
	d, blobs := bundle.NewArtifact("application/vnd.example.large", nil, layer)
	document, err := bundle.Encode(bundle.Deployment{
		APIVersion: bundle.APIVersion,
		Kind:       "Deployment",
		Name:       "large",
		Version:    "1",
		Components: []bundle.Component{},
		Images: []bundle.Image{
			{Reference: "example.com/large:1", Repository: "example.com/large", Tag: "1", Digest: d.Digest, Manifests: []bundle.Digest{d.Digest}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	doc := bundle.Descriptor{MediaType: bundle.TypeDeployment + "+json", Digest: bundle.DigestOf(document), Size: int64(len(document))}
	root, more := bundle.NewArtifact(bundle.TypeDeployment, nil, doc)
	for digest, data := range more {
		blobs[digest] = data
	}
	blobs[doc.Digest], blobs[bundle.DigestOf(config)] = document, config
	d.ArtifactType, d.Annotations = "", map[string]string{bundle.AnnotationRef: "example.com/large:1"}
	info := bundle.Info{Name: "large", Version: "1", Channel: "large", Platforms: []bundle.Platform{{OS: "linux", Architecture: "amd64"}}}
	index, err := bundle.Encode(bundle.NewIndex(info, []bundle.Descriptor{root, d}))
	if err != nil {
		t.Fatal(err)
	}
	g, err := bundle.NewGeometry(index, func(m bundle.Member) ([]byte, error) { return blobs[m.Digest], nil })
	if err != nil {
		t.Fatal(err)
	}
	signature, err := key.Signer.Sign(index)
	if err != nil {
		t.Fatal(err)
	}
	slot, err := bundle.EncodeSlot([]bundle.Signature{signature})
	if err != nil {
		t.Fatal(err)
	}
	file := sparse{map[int64][]byte{}, g.Size}
	if err := g.WriteFrame(file, slot); err != nil {
		t.Fatal(err)
	}
	for _, m := range g.Blobs() {
		if data := blobs[m.Digest]; data != nil {
			file.at[m.Data] = data
		}
	}
	policy := trusting(key)
	v, err := verify.Open(t.Context(), file, g.Size, policy)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Payload(t.Context(), bundle.Watch{}); err != nil {
		t.Error(err)
	}
	large, _ := v.Place(digest)
	file.at[large.Data+size-1] = []byte{1}
	if err := v.Payload(t.Context(), bundle.Watch{}); !errors.Is(err, bundle.ErrDigest) {
		t.Errorf("a bit at the end: %v", err)
	}
}
