package manifests

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Lock is what a manifest was resolved to. Together with upstream's bytes it
// determines a bundle, up to the signatures.
type Lock struct {
	APIVersion string        `yaml:"apiVersion"` // bundle.APIVersion
	Kind       string        `yaml:"kind"`       // "Lock"
	Metadata   Metadata      `yaml:"metadata"`
	Program    string        `yaml:"program"`  // version that made it
	Manifest   bundle.Digest `yaml:"manifest"` // of the manifest's bytes
	Channel    string        `yaml:"channel"`
	Sequence   int64         `yaml:"sequence"`
	Created    time.Time     `yaml:"created"` // UTC, whole seconds
	Platforms  []string      `yaml:"platforms"`
	Images     []LockedImage `yaml:"images"` // in the order of the manifest
}

// LockedImage is a reference and what it means.
type LockedImage struct {
	Reference string        `yaml:"reference"` // in full
	MediaType string        `yaml:"mediaType"`
	Digest    bundle.Digest `yaml:"digest"`
	Size      int64         `yaml:"size"` // of the manifest or index, bytes
	// Carried lists the manifests of an index of which not all are carried.
	Carried []LockedManifest `yaml:"carried,omitempty"`
}

// LockedManifest is one manifest of an index.
type LockedManifest struct {
	Platform string        `yaml:"platform,omitempty"` // empty for an attestation
	Digest   bundle.Digest `yaml:"digest"`
	Size     int64         `yaml:"size"` // bytes
}

// ReadLock reads and checks the lock at path.
func ReadLock(path string) (*Lock, error) {
	data, err := readDocument(path)
	if err != nil {
		return nil, err
	}
	var l Lock
	if err := load(data, &l, "Lock"); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, i := range l.Images {
		r, err := bundle.ParseReference(i.Reference)
		if err == nil && r.String() != i.Reference {
			err = fmt.Errorf("reference %q is not one in full", i.Reference)
		}
		if err == nil {
			_, err = bundle.ParseDigest(string(i.Digest))
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", path, ErrInvalid, err)
		}
	}
	return &l, nil
}

// Encode returns the lock as YAML.
func (l *Lock) Encode() ([]byte, error) { return yaml.Dump(l, yaml.WithV4Defaults()) }

// Image returns what the lock says about a reference.
func (l *Lock) Image(ref bundle.Reference) (LockedImage, bool) {
	for _, i := range l.Images {
		if i.Reference == ref.String() {
			return i, true
		}
	}
	return LockedImage{}, false
}
