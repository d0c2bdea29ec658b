package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
)

func inspectCommand(u *ui) *cobra.Command {
	var sbom, provenance bool
	c := &cobra.Command{
		Use:   "inspect BUNDLE",
		Short: "Show what is inside, without claiming that it can be trusted",
		Example: `  oob-bundle inspect /media/disk/app.oob.tar
  oob-bundle inspect /media/disk/app.oob.tar --sbom >app.cdx.json`,
		Args: needs("BUNDLE"),
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case sbom && provenance:
				return fmt.Errorf("%w: --sbom and --provenance are two documents; ask for one", errUsage)
			case sbom:
				return u.inspectDocument(args[0], bundle.TypeSBOM)
			case provenance:
				return u.inspectDocument(args[0], bundle.TypeProvenance)
			}
			return u.inspect(args[0])
		},
	}
	c.Flags().BoolVar(&sbom, "sbom", false, "print the list of the content that the bundle carries (CycloneDX)")
	c.Flags().BoolVar(&provenance, "provenance", false, "print the statement of how it was made that it carries (in-toto, SLSA)")
	u.jsonFlag(c)
	return c
}

type inspectJSON struct {
	Verified   bool               `json:"verified"` // always false
	Bundle     bundleJSON         `json:"bundle"`
	Signatures []signatureJSON    `json:"signatures"` // as they claim; none was checked
	Images     []inspectImageJSON `json:"images"`
	Deployment string             `json:"deployment,omitempty"`
	Components []bundle.Component `json:"components"`
	Charts     []bundle.Chart     `json:"charts"`
	Plugins    []bundle.Plugin    `json:"plugins"`
	Files      []bundle.HostFile  `json:"files"`
	Blobs      int                `json:"blobs"`
	Bytes      int64              `json:"bytes"` // of the blobs
}

type inspectImageJSON struct {
	Reference string                `json:"reference"`
	Digest    bundle.Digest         `json:"digest"`
	Partial   bool                  `json:"partial"` // an index of which only some manifests are carried
	Manifests []inspectManifestJSON `json:"manifests"`
}

type inspectManifestJSON struct {
	Platform string        `json:"platform,omitempty"`
	Digest   bundle.Digest `json:"digest"`
}

func (u *ui) inspect(path string) (err error) {
	file, err := bundle.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	out, err := inspectFile(file, file.Size())
	if err != nil {
		return &bundleError{path, err}
	}
	return u.result(out, func(w io.Writer) {
		fmt.Fprintf(w, "UNVERIFIED  %s   %s bytes\n", path, commas(file.Size()))
		fmt.Fprintf(w, "What follows is what the file says of itself. Check it with oob-bundle verify.\n")
		fmt.Fprintf(w, "  identity  %s\n", out.Bundle.Digest)
		fmt.Fprintf(w, "  bundle    %q %q for %q\n", out.Bundle.Name, out.Bundle.Version, out.Bundle.Platforms)
		fmt.Fprintf(w, "  channel   %q, sequence %d, created %s\n", out.Bundle.Channel, out.Bundle.Sequence, out.Bundle.Created)
		for _, s := range out.Signatures {
			fmt.Fprintf(w, "  signature %s  (not checked)\n", s.Fingerprint)
		}
		for _, i := range out.Images {
			fmt.Fprintf(w, "  image     %q %s\n", i.Reference, i.Digest)
			for _, m := range i.Manifests {
				if m.Platform != "" {
					fmt.Fprintf(w, "              %q %s\n", m.Platform, m.Digest)
				}
			}
		}
		for _, c := range out.Charts {
			fmt.Fprintf(w, "  chart     %q %q of %q\n", c.Name, c.Version, c.Repository)
		}
		for _, p := range out.Plugins {
			signed := "with its signature"
			if p.Signature == "" {
				signed = "without a signature"
			}
			fmt.Fprintf(w, "  plugin    %q %q, %s\n", p.ID, p.Version, signed)
		}
		for _, f := range out.Files {
			fmt.Fprintf(w, "  file      %q %s, %s bytes\n", f.Path, f.Mode, commas(f.Size))
		}
		fmt.Fprintf(w, "  content   %d blobs, %s bytes\n", out.Blobs, commas(out.Bytes))
	})
}

// maxDocument bounds a document that a bundle carries about itself, in bytes.
const maxDocument = 64 << 20

// inspectDocument prints a document as it is; it is JSON already.
func (u *ui) inspectDocument(path, artifactType string) (err error) {
	file, err := bundle.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	head, err := bundle.ReadHead(file, file.Size())
	if err != nil {
		return &bundleError{path, err}
	}
	r, err := bundle.NewReader(file, file.Size(), head)
	if err != nil {
		return &bundleError{path, err}
	}
	data, err := r.Document(artifactType, maxDocument)
	if err != nil {
		return &bundleError{path, err}
	}
	if data == nil {
		return fmt.Errorf("%w: %s carries no such document", errUsage, path)
	}
	u.warn("UNVERIFIED: this is what the file says of itself; check it with oob-bundle verify")
	if _, err := u.out.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("the document could not be written: %v", err) //nolint:errorlint // a full pipe is not a full disk
	}
	return nil
}

func inspectFile(file io.ReaderAt, size int64) (*inspectJSON, error) {
	head, err := bundle.ReadHead(file, size)
	if err != nil {
		return nil, err
	}
	r, err := bundle.NewReader(file, size, head)
	if err != nil {
		return nil, err
	}
	deployment, err := r.Deployment()
	if err != nil {
		return nil, err
	}
	out := &inspectJSON{
		Bundle: describeBundle(head.Identity(), r.Info), Signatures: []signatureJSON{}, Images: []inspectImageJSON{},
		Deployment: deployment.Form, Components: deployment.Components,
		Charts: append([]bundle.Chart{}, deployment.Charts...), Plugins: append([]bundle.Plugin{}, deployment.Plugins...), Files: append([]bundle.HostFile{}, deployment.Files...),
		Blobs: len(r.Blobs()), Bytes: r.PayloadSize(),
	}
	signatures, err := bundle.ParseSlot(head.Slot)
	if err != nil {
		return nil, err
	}
	for _, s := range signatures {
		out.Signatures = append(out.Signatures, signatureJSON{Fingerprint: s.Key.String()})
	}
	for _, i := range deployment.Images {
		image := inspectImageJSON{Reference: i.Reference, Digest: i.Digest, Partial: i.Partial, Manifests: []inspectManifestJSON{}}
		for _, d := range r.Index.Manifests {
			if d.Annotations[bundle.AnnotationRef] == i.Reference {
				image.Manifests = append(image.Manifests, manifestsBelow(r.Geometry, d)...)
			}
		}
		out.Images = append(out.Images, image)
	}
	return out, nil
}

// manifestsBelow lists d, or the manifests of the index that it is.
func manifestsBelow(g *bundle.Geometry, d bundle.Descriptor) []inspectManifestJSON {
	list := []bundle.Descriptor{d}
	if m := g.Manifests[d.Digest]; bundle.IsIndex(d.MediaType) && m != nil {
		list = m.Manifests
	}
	var out []inspectManifestJSON
	for _, c := range list {
		m := inspectManifestJSON{Digest: c.Digest}
		if c.Platform != nil {
			m.Platform = c.Platform.String()
		}
		out = append(out, m)
	}
	return out
}
