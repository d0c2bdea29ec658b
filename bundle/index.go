package bundle

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Annotations. Those that start with Prefix belong to this format; a reader refuses a bundle
// with an unknown one with ErrNewer.
const (
	Prefix              = "dev.oobbundle."
	AnnotationName      = Prefix + "name"
	AnnotationVersion   = Prefix + "version"
	AnnotationChannel   = Prefix + "channel"
	AnnotationSequence  = Prefix + "sequence"
	AnnotationPlatforms = Prefix + "platforms"
	AnnotationMediaType = Prefix + "media-type" // of an upstream index carried as an opaque layer
	AnnotationCreated   = "org.opencontainers.image.created"
	AnnotationRef       = "org.opencontainers.image.ref.name"
)

var knownAnnotations = map[string]bool{
	AnnotationName: true, AnnotationVersion: true, AnnotationChannel: true,
	AnnotationSequence: true, AnnotationPlatforms: true, AnnotationMediaType: true,
}

// Info contains the root's annotations about the bundle as a whole.
type Info struct {
	Name      string     // lower-case letters, digits and single separators
	Version   string     // any version that fits into a file name
	Channel   string     // update channel; sequences are compared within it
	Sequence  int64      // increases with each bundle of a channel
	Created   time.Time  // written in UTC and whole seconds; for display only
	Platforms []Platform // for which images were selected, in the author's order
}

var (
	nameSyntax    = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)
	versionSyntax = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)
	channelSyntax = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+/-]*$`)
)

// Check returns an error if a bundle must not contain one of the values.
func (i Info) Check() error {
	switch {
	case !nameSyntax.MatchString(i.Name) || len(i.Name) > 128:
		return fmt.Errorf("the name %q must be lower-case letters, digits and single separators (. _ -), at most 128", i.Name)
	case !versionSyntax.MatchString(i.Version) || len(i.Version) > 128:
		return fmt.Errorf("the version %q must be letters, digits and . _ + -, at most 128", i.Version)
	case !ValidChannel(i.Channel):
		return fmt.Errorf("the channel %q must be letters, digits and . _ + / -, at most %d", i.Channel, MaxName)
	case i.Sequence < 0:
		return fmt.Errorf("the sequence %d must not be negative", i.Sequence)
	case len(i.Platforms) == 0:
		return fmt.Errorf("no platform is named")
	}
	return nil
}

func (i Info) annotations() map[string]string {
	return map[string]string{
		AnnotationName:      i.Name,
		AnnotationVersion:   i.Version,
		AnnotationChannel:   i.Channel,
		AnnotationSequence:  strconv.FormatInt(i.Sequence, 10),
		AnnotationPlatforms: strings.Join(i.PlatformNames(), ","),
		AnnotationCreated:   i.Created.UTC().Format(time.RFC3339),
	}
}

// PlatformNames returns the platforms as OS/ARCHITECTURE[/VARIANT].
func (i Info) PlatformNames() []string {
	names := make([]string, len(i.Platforms))
	for k, p := range i.Platforms {
		names[k] = p.String()
	}
	return names
}

// Index is the root: an OCI image index (image-spec 1.1, image-index.md) whose
// first manifest is the deployment document's.
type Index struct {
	SchemaVersion int               `json:"schemaVersion"` // 2
	MediaType     string            `json:"mediaType"`     // TypeOCIIndex
	ArtifactType  string            `json:"artifactType"`  // TypeBundle
	Manifests     []Descriptor      `json:"manifests"`
	Annotations   map[string]string `json:"annotations"`
}

// NewIndex returns the root for the given content.
func NewIndex(info Info, manifests []Descriptor) Index {
	return Index{
		SchemaVersion: 2, MediaType: TypeOCIIndex, ArtifactType: TypeBundle,
		Manifests: manifests, Annotations: info.annotations(),
	}
}

// ParseIndex reads index.json and checks everything that can be checked
// without its children. Errors wrap ErrFormat, ErrLimit, ErrPolicy or ErrNewer.
func ParseIndex(data []byte) (*Index, Info, error) {
	if len(data) > MaxManifest {
		return nil, Info{}, fmt.Errorf("%w: index.json has %d bytes, at most %d are allowed", ErrLimit, len(data), MaxManifest)
	}
	var x Index
	if err := DecodeStrict(data, &x); err != nil {
		return nil, Info{}, fmt.Errorf("index.json: %w", err)
	}
	if x.SchemaVersion != 2 || x.MediaType != TypeOCIIndex {
		return nil, Info{}, fmt.Errorf("%w: index.json is not an OCI image index", ErrFormat)
	}
	if x.ArtifactType != TypeBundle {
		if strings.HasPrefix(x.ArtifactType, "application/vnd.oobbundle.bundle.") {
			return nil, Info{}, fmt.Errorf("%w: it is a %q; use a newer version here", ErrNewer, x.ArtifactType)
		}
		return nil, Info{}, fmt.Errorf("%w: index.json has the artifactType %q, not %q", ErrFormat, x.ArtifactType, TypeBundle)
	}
	if err := x.checkAnnotations(); err != nil {
		return nil, Info{}, err
	}
	if err := x.checkManifests(); err != nil {
		return nil, Info{}, err
	}
	info, err := x.info()
	return &x, info, err
}

func (x *Index) checkAnnotations() error {
	if err := refuseUnknown(x.Annotations); err != nil {
		return err
	}
	for i := range x.Manifests {
		if err := refuseUnknown(x.Manifests[i].Annotations); err != nil {
			return err
		}
	}
	return nil
}

func refuseUnknown(annotations map[string]string) error {
	for k := range annotations {
		if strings.HasPrefix(k, Prefix) && !knownAnnotations[k] {
			return fmt.Errorf("%w: it says %q, which this version does not know; use a newer version here", ErrNewer, k)
		}
	}
	return nil
}

// checkOurs refuses unknown annotations with Prefix in a manifest of this format. Upstream's
// manifests may have any annotations.
func (m *Manifest) checkOurs() error {
	if !strings.HasPrefix(m.ArtifactType, "application/vnd.oobbundle.") {
		return nil
	}
	if err := refuseUnknown(m.Annotations); err != nil {
		return err
	}
	for _, l := range m.Layers {
		if err := refuseUnknown(l.Annotations); err != nil {
			return err
		}
	}
	return nil
}

// checkManifests refuses roots that a registry or an engine could read in two ways: a
// descriptor that is not a manifest, or one reference with two meanings.
func (x *Index) checkManifests() error {
	if len(x.Manifests) == 0 || x.Manifests[0].ArtifactType != TypeDeployment {
		return fmt.Errorf("%w: index.json does not begin with a deployment document", ErrFormat)
	}
	if len(x.Manifests) > MaxReferences {
		return fmt.Errorf("%w: index.json lists %d manifests, at most %d are allowed", ErrLimit, len(x.Manifests), MaxReferences)
	}
	seen := map[string]map[string]bool{} // reference → platforms
	for i := range x.Manifests {
		d := &x.Manifests[i]
		if err := d.check(); err != nil {
			return fmt.Errorf("index.json: %w", err)
		}
		if !IsManifest(d.MediaType) {
			return fmt.Errorf("%w: index.json lists %s as %q, which is no manifest", ErrFormat, d.Digest, d.MediaType)
		}
		ref, ok := d.Annotations[AnnotationRef]
		if !ok {
			continue
		}
		r, err := ParseReference(ref)
		if err != nil || r.String() != ref {
			return fmt.Errorf("%w: index.json has the reference %q, which is not one in full", ErrFormat, ref)
		}
		platform := "" // an index, or an image without a platform: no other descriptor may have its reference
		if d.Platform != nil {
			if _, err := ParsePlatform(d.Platform.String()); err != nil {
				return fmt.Errorf("%w: index.json: %w", ErrFormat, err)
			}
			platform = d.Platform.String() + " " + d.Platform.OSVersion
		}
		others := seen[ref]
		if others[platform] || others[""] || platform == "" && len(others) > 0 {
			return fmt.Errorf("%w: index.json gives %q two meanings", ErrFormat, ref)
		}
		if others == nil {
			seen[ref] = map[string]bool{}
		}
		seen[ref][platform] = true
	}
	return nil
}

func (x *Index) info() (Info, error) {
	a := x.Annotations
	i := Info{Name: a[AnnotationName], Version: a[AnnotationVersion], Channel: a[AnnotationChannel]}
	var err error
	if i.Sequence, err = strconv.ParseInt(
		a[AnnotationSequence],
		10,
		64,
	); err != nil ||
		a[AnnotationSequence] != strconv.FormatInt(i.Sequence, 10) {
		return i, fmt.Errorf("%w: index.json has the sequence %q", ErrFormat, a[AnnotationSequence])
	}
	if i.Created, err = time.Parse(time.RFC3339, a[AnnotationCreated]); err != nil {
		return i, fmt.Errorf("%w: index.json has the creation time %q", ErrFormat, a[AnnotationCreated])
	}
	for _, s := range strings.Split(a[AnnotationPlatforms], ",") {
		p, err := ParsePlatform(s)
		if err != nil {
			return i, fmt.Errorf("%w: index.json: %w", ErrFormat, err)
		}
		i.Platforms = append(i.Platforms, p)
	}
	if err := i.Check(); err != nil {
		return i, fmt.Errorf("%w: index.json: %w", ErrFormat, err)
	}
	return i, nil
}

// ValidChannel reports whether s may be the channel of a bundle.
func ValidChannel(s string) bool { return channelSyntax.MatchString(s) && len(s) <= MaxName }
