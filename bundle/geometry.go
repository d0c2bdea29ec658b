package bundle

import (
	"errors"
	"fmt"
	"strconv"
)

// Names of the members that are not blobs, in the order of the file. The blobs are between the
// slot and the load list.
const (
	NameLayout     = "oci-layout"
	NameIndex      = "index.json"
	NameSignatures = "signatures.jsonl"
	NameLoadList   = "manifest.json"
	blobDir        = "blobs/sha256/"
)

// layoutDocument is the whole content of oci-layout (image-spec, image-layout.md).
const layoutDocument = `{"imageLayoutVersion":"1.0.0"}`

// Member is one file in the tar.
type Member struct {
	Name   string
	Digest Digest // of a blob; empty for the four others
	Offset int64  // of the header, bytes from the start of the bundle
	Data   int64  // of the content, bytes from the start of the bundle
	Size   int64  // of the content, bytes
	Type   string // media type under which a blob was first met
	Root   int    // index of the manifest in Index.Manifests under which a blob was first met
}

// end returns the offset after content and padding.
func (m Member) end() int64 { return m.Data + m.Size + padding(m.Size) }

// Geometry is the complete layout of a bundle: every byte that is not content, and the place
// of all content. It is a pure function of index.json and the manifests below it.
type Geometry struct {
	Root      []byte   // the bytes of index.json
	Index     *Index   // parsed Root
	Info      Info     // from Index
	Members   []Member // in the order of the file
	LoadList  []byte   // the content of manifest.json
	Size      int64    // of the whole file, bytes
	Manifests map[Digest]*Manifest

	places map[Digest]int // into Members
}

// Load returns the content of a manifest. NewGeometry checks the content against the digest
// before parsing it.
type Load func(Member) ([]byte, error)

// NewGeometry computes the layout of the bundle whose root is the given index.json. It is the
// only code that knows the order of members; writer and reader both call it. Errors wrap
// ErrFormat, ErrDigest, ErrLimit, ErrPolicy, ErrNewer, or come from load.
func NewGeometry(root []byte, load Load) (*Geometry, error) {
	index, info, err := ParseIndex(root)
	if err != nil {
		return nil, err
	}
	g := &Geometry{
		Root: root, Index: index, Info: info,
		Manifests: map[Digest]*Manifest{}, places: map[Digest]int{},
	}
	g.add(Member{Name: NameLayout, Size: int64(len(layoutDocument))})
	g.add(Member{Name: NameIndex, Size: int64(len(root))})
	g.add(Member{Name: NameSignatures, Size: SlotSize})
	w := walk{Geometry: g, load: load, heights: map[Digest]int{}}
	for i, d := range index.Manifests {
		w.root = i
		if err := w.visit(d, 1); err != nil {
			return nil, err
		}
	}
	if g.LoadList, err = g.loadList(); err != nil {
		return nil, err
	}
	g.add(Member{Name: NameLoadList, Size: int64(len(g.LoadList))})
	g.Size += endSize
	return g, nil
}

// add appends a member and returns it with its offsets.
func (g *Geometry) add(m Member) Member {
	m.Offset = g.Size
	m.Data = m.Offset + headerSize(m.Size)
	g.Size = m.end()
	g.Members = append(g.Members, m)
	return m
}

// walk is a depth-first walk in the order of the documents.
type walk struct {
	*Geometry
	load  Load
	root  int // index of the root's manifest that is being walked
	edges int
	bytes int64 // of all loaded manifests
	// heights of manifests: 1 for a manifest without child manifests.
	heights map[Digest]int
}

// visit gives d its place, if it has none yet. It descends into a manifest when the digest is
// first met under a manifest's media type.
func (w *walk) visit(d Descriptor, depth int) error {
	if w.edges++; w.edges > MaxDescriptors {
		return fmt.Errorf("%w: more than %d descriptors", ErrLimit, MaxDescriptors)
	}
	i, placed := w.places[d.Digest]
	if !placed {
		if len(w.places) == MaxMembers {
			return fmt.Errorf("%w: more than %d blobs", ErrLimit, MaxMembers)
		}
		i = len(w.Members)
		w.places[d.Digest] = i
		w.add(Member{Name: blobDir + d.Digest.Hex(), Digest: d.Digest, Size: d.Size, Type: d.MediaType, Root: w.root})
	} else if w.Members[i].Size != d.Size {
		return fmt.Errorf("%w: blob %s is listed with %d and with %d bytes", ErrFormat, d.Digest, w.Members[i].Size, d.Size)
	}
	if !IsManifest(d.MediaType) {
		return nil
	}
	if m := w.Manifests[d.Digest]; m != nil {
		if m.Descriptor.MediaType != d.MediaType {
			return fmt.Errorf("%w: manifest %s is listed as %q and as %q", ErrFormat, d.Digest, m.Descriptor.MediaType, d.MediaType)
		}
		if depth+w.heights[d.Digest]-1 > MaxDepth {
			return fmt.Errorf("%w: what manifest %s leads to is nested more than %d deep", ErrLimit, d.Digest, MaxDepth)
		}
		return nil
	}
	if d.Size > MaxManifest {
		return fmt.Errorf("%w: manifest %s has %d bytes, at most %d are allowed", ErrLimit, d.Digest, d.Size, MaxManifest)
	}
	if depth > MaxDepth {
		return fmt.Errorf("%w: manifest %s is nested more than %d deep", ErrLimit, d.Digest, MaxDepth)
	}
	if w.bytes += d.Size; w.bytes > MaxManifests {
		return fmt.Errorf("%w: the manifests have more than %d bytes together", ErrLimit, MaxManifests)
	}
	data, err := w.load(w.Members[i])
	if err != nil {
		return err
	}
	if err := d.Verify(data); err != nil {
		return fmt.Errorf("%w: %s", err, w.Describe(w.Members[i]))
	}
	m, err := ParseManifest(d, data)
	if err != nil {
		return err
	}
	if err := errors.Join(m.checkOurs(), m.checkIndex()); err != nil {
		return err
	}
	w.Manifests[d.Digest] = m
	height := 0
	for _, c := range m.Children() {
		if err := w.visit(c, depth+1); err != nil {
			return err
		}
		height = max(height, w.heights[c.Digest])
	}
	w.heights[d.Digest] = height + 1
	return nil
}

// Blobs returns the members that are blobs, in the order of the file.
func (g *Geometry) Blobs() []Member { return g.Members[3 : len(g.Members)-1] }

// Place returns the member that holds the given blob.
func (g *Geometry) Place(d Digest) (Member, bool) {
	i, ok := g.places[d]
	if !ok {
		return Member{}, false
	}
	return g.Members[i], true
}

// PayloadSize returns the sum of the blobs' sizes, in bytes.
func (g *Geometry) PayloadSize() int64 {
	var n int64
	for _, m := range g.Blobs() {
		n += m.Size
	}
	return n
}

// Describe describes a member for people: its kind, its image and its place in the file.
func (g *Geometry) Describe(m Member) string {
	if m.Digest == "" {
		return m.Name
	}
	what := "a blob"
	switch {
	case IsIndex(m.Type):
		what = "the index"
	case IsManifest(m.Type):
		what = "the manifest"
	case isImageConfig(m.Type):
		what = "the config"
	case isFilesystemLayer(m.Type):
		what = "a layer"
	}
	of := "the bundle"
	if d := g.Index.Manifests[m.Root]; d.Annotations[AnnotationRef] != "" {
		of = d.Annotations[AnnotationRef]
	} else if d.ArtifactType != "" {
		of = strconv.Quote(d.ArtifactType)
	}
	return fmt.Sprintf("blob %s, %s of %s (bytes %d to %d of the file)", m.Digest, what, of, m.Data, m.Data+m.Size-1)
}

// loadList returns Docker's list of images (docker save's manifest.json). It has one entry for
// each reference, in the order of the root, for the first manifest that an engine can run.
// References without such a manifest are left out. The error wraps ErrLimit.
func (g *Geometry) loadList() ([]byte, error) {
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	entries := []entry{}
	seen := map[string]bool{}
	found := map[Digest]*Manifest{}
	layers := 0
	for _, d := range g.Index.Manifests {
		ref := d.Annotations[AnnotationRef]
		if ref == "" || seen[ref] {
			continue
		}
		m := g.firstRunnable(d, found)
		if m == nil {
			continue
		}
		if layers += len(m.Layers); layers > MaxLoadLayers {
			return nil, fmt.Errorf("%w: %s would name more than %d layers", ErrLimit, NameLoadList, MaxLoadLayers)
		}
		seen[ref] = true
		e := entry{Config: blobDir + m.Config.Digest.Hex(), RepoTags: []string{loadTag(ref, d.Digest)}, Layers: []string{}}
		for _, l := range m.Layers {
			e.Layers = append(e.Layers, blobDir+l.Digest.Hex())
		}
		entries = append(entries, e)
	}
	data, err := Encode(entries)
	if err != nil {
		panic("bundle: " + err.Error()) // strings only
	}
	return data, nil
}

// firstRunnable returns the first image at or below d that an engine can run, or nil. Found
// caches the results, because indexes may share children.
func (g *Geometry) firstRunnable(d Descriptor, found map[Digest]*Manifest) *Manifest {
	if r, ok := found[d.Digest]; ok {
		return r
	}
	m := g.Manifests[d.Digest]
	found[d.Digest] = nil
	if m == nil {
		return nil
	}
	if m.Runnable() {
		found[d.Digest] = m
		return m
	}
	for _, c := range m.Manifests {
		if r := g.firstRunnable(c, found); r != nil {
			found[d.Digest] = r
			return r
		}
	}
	return nil
}

// loadTag returns the name under which docker load stores an image: the reference without its
// digest. A reference without a tag gets the tag "sha256-" and the first 16 digits of d,
// because an engine cannot name an image without a tag.
func loadTag(ref string, d Digest) string {
	r, err := ParseReference(ref)
	if err != nil {
		return ref // ParseIndex refuses such a reference
	}
	if r.Tag == "" {
		r.Tag = "sha256-" + d.Short()
	}
	r.Digest = ""
	return r.String()
}
