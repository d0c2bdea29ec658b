package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// Digest is "sha256:" and 64 lower-case hexadecimal digits. No other algorithm or spelling is
// accepted.
type Digest string

// DigestOf returns the digest of data.
func DigestOf(data []byte) Digest {
	sum := sha256.Sum256(data)
	return DigestFrom(sum[:])
}

// DigestFrom returns the digest with the given SHA-256 sum (32 bytes).
func DigestFrom(sum []byte) Digest { return Digest("sha256:" + hex.EncodeToString(sum)) }

// ParseDigest checks the spelling of s. The error wraps ErrFormat.
func ParseDigest(s string) (Digest, error) {
	h, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(h) != 64 || strings.Trim(h, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%w: %q is not a sha256 digest", ErrFormat, s)
	}
	return Digest(s), nil
}

// Hex returns the 64 digits.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), "sha256:") }

// Short returns the first 16 digits, for display.
func (d Digest) Short() string {
	h := d.Hex()
	return h[:min(16, len(h))]
}

// Descriptor is an OCI content descriptor (image-spec, descriptor.md).
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       Digest            `json:"digest"`
	Size         int64             `json:"size"` // bytes
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Data         []byte            `json:"data,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// check refuses a descriptor that no reader may follow.
func (d *Descriptor) check() error {
	if _, err := ParseDigest(string(d.Digest)); err != nil {
		return err
	}
	if d.Size < 0 {
		return fmt.Errorf("%w: %s has the size %d", ErrFormat, d.Digest, d.Size)
	}
	if d.Size > MaxBlob {
		return fmt.Errorf("%w: %s has %d bytes, more than a bundle can hold", ErrLimit, d.Digest, d.Size)
	}
	if d.MediaType == "" || len(d.MediaType) > MaxName || strings.ContainsFunc(d.MediaType, notPrintable) {
		return fmt.Errorf("%w: %s has the media type %q", ErrFormat, d.Digest, d.MediaType)
	}
	if len(d.URLs) > 0 {
		return fmt.Errorf("%w: %s is to be fetched from %q by whoever runs the image; such layers cannot cross an air gap",
			ErrPolicy, d.Digest, d.URLs[0])
	}
	if d.Data != nil && (int64(len(d.Data)) != d.Size || DigestOf(d.Data) != d.Digest) {
		return fmt.Errorf("%w: the embedded data of %s", ErrDigest, d.Digest)
	}
	return nil
}

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }

// Verify returns an error that wraps ErrDigest if data does not have the size and digest of d.
func (d *Descriptor) Verify(data []byte) error {
	if int64(len(data)) != d.Size || DigestOf(data) != d.Digest {
		return fmt.Errorf("%w: %s (%d bytes) has other content (%s, %d bytes)",
			ErrDigest, d.Digest, d.Size, DigestOf(data), len(data))
	}
	return nil
}

// Platform is the platform object of an OCI index (image-spec, image-index.md).
type Platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

// ParsePlatform parses OS/ARCHITECTURE[/VARIANT]. It drops the variants of arm64/v8 and
// amd64/v1, which are the default. Arm without a variant means arm/v7.
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return Platform{}, fmt.Errorf("platform %q is not OS/ARCHITECTURE, such as linux/amd64", s)
	}
	for _, p := range parts {
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return Platform{}, fmt.Errorf("platform %q is not OS/ARCHITECTURE, such as linux/amd64", s)
		}
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p.normal(), nil
}

func (p Platform) normal() Platform {
	switch {
	case p.Architecture == "arm64" && p.Variant == "v8", p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	}
	return p
}

// String returns OS/ARCHITECTURE[/VARIANT].
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// Machine reports whether a manifest of this platform is for machines. A manifest without a
// platform, with an empty one, or with BuildKit's unknown/unknown is an artifact.
func (p *Platform) Machine() bool {
	known := func(s string) bool { return s != "" && s != "unknown" }
	return p != nil && known(p.OS) && known(p.Architecture)
}

// Runs reports whether a machine of platform p runs software built for q. A newer variant runs
// software for an older one, as in podman. Runs does not accept 386 on amd64 or arm on arm64,
// which containerd also tries. Among several platforms, engines take the one with the least
// distance; 0 is p itself. Runs does not compare operating system versions and features.
func (p Platform) Runs(q Platform) (distance int, ok bool) {
	p, q = p.normal(), q.normal()
	if p.OS != q.OS || p.Architecture != q.Architecture {
		return 0, false
	}
	if p.Variant == q.Variant {
		return 0, true
	}
	have, okHave := p.level()
	need, okNeed := q.level()
	return have - need, okHave && okNeed && need <= have
}

// level returns the number of the variant. Ok is false if newer variants of the architecture
// do not run software for older ones.
func (p Platform) level() (n int, ok bool) {
	standard, ordered := map[string]int{"amd64": 1, "arm": 7, "arm64": 8}[p.Architecture]
	if p.Variant == "" {
		return standard, ordered
	}
	n, err := strconv.Atoi(strings.TrimPrefix(p.Variant, "v"))
	return n, ordered && err == nil
}

// Matches reports whether p and q name the same operating system,
// architecture and variant.
func (p Platform) Matches(q Platform) bool { return p.normal().String() == q.normal().String() }

func digestBytes(d Digest) ([]byte, error) {
	if _, err := ParseDigest(string(d)); err != nil {
		return nil, err
	}
	return hex.DecodeString(d.Hex())
}
