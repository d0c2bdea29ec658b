package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/record"
	"github.com/oob-bundle/oob-bundle/install/operate"
)

func inspectCommand(u *ui) *cobra.Command {
	var f inspectFlags
	c := &cobra.Command{
		Use:   "inspect BUNDLE",
		Short: "Show the content of a bundle without verifying it",
		Long: `inspect prints the content that the file declares. It does not check signatures; run
oob-bundle verify to check the bundle.`,
		Example: `  oob-bundle inspect /media/disk/app.oob.tar
  oob-bundle inspect app.oob.tar --html app.html --against old.oob.tar
  oob-bundle inspect /media/disk/app.oob.tar --sbom >app.cdx.json`,
		Args: needs("BUNDLE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			switch {
			case f.sbom:
				return u.inspectDocument(args[0], bundle.TypeSBOM)
			case f.provenance:
				return u.inspectDocument(args[0], bundle.TypeProvenance)
			}
			return u.inspect(args[0], f)
		},
	}
	c.Flags().StringVar(
		&f.html,
		"html",
		"",
		"write the transfer record, a page to print, to `FILE`; replaces an existing FILE only if it is a transfer record",
	)
	c.Flags().StringVar(&f.against, "against", "", "report the changes since another `BUNDLE`")
	c.Flags().BoolVar(&f.sbom, "sbom", false, "print the SBOM of the bundle, a list of its content (CycloneDX)")
	c.Flags().BoolVar(&f.provenance, "provenance", false, "print the provenance of the bundle, a record of how it was made (in-toto, SLSA)")
	u.jsonFlag(c)
	return c
}

// inspectFlags select the output of inspect and the bundle to compare with.
type inspectFlags struct {
	sbom, provenance bool
	html, against    string
}

func (f inspectFlags) check() error {
	switch document := f.sbom || f.provenance; {
	case f.sbom && f.provenance:
		return wrongUsage("--sbom and --provenance are two documents; ask for one")
	case document && (f.html != "" || f.against != ""):
		return wrongUsage("--sbom and --provenance print a document as it is; --html and --against do not go with them")
	}
	return nil
}

// inspect describes a bundle and prints the description as text or JSON. With --html it also
// writes the transfer record.
func (u *ui) inspect(path string, f inspectFlags) (err error) {
	if f.html != "" {
		if err := record.Replaceable(f.html); err != nil {
			return err
		}
	}
	file, s, err := describe(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if f.against != "" {
		old, before, err := describe(f.against)
		if err != nil {
			return err
		}
		err = errors.Join(s.Compare(before), old.Close())
		if err != nil {
			return operate.OfBundle(path, err)
		}
	}
	if f.html != "" {
		page, err := pageOf(path, file, s).HTML()
		if err != nil {
			return err
		}
		if err := disk.WriteFile(f.html, page, 0o644); err != nil {
			return err
		}
	}
	return u.result(s, func(w io.Writer) {
		fmt.Fprintf(w, "UNVERIFIED  %s   %s bytes\n", path, commas(file.Size()))
		fmt.Fprintf(w, "What follows is what the file says of itself. Check it with oob-bundle verify.\n")
		if f.html != "" {
			fmt.Fprintf(w, "  record    %s\n", f.html)
		}
		printSummary(w, s)
	})
}

// describe opens a bundle and summarizes its content. The caller must close the file.
func describe(path string) (*bundle.File, *record.Summary, error) {
	file, err := bundle.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	s, err := record.Read(file, file.Size())
	if err != nil {
		return nil, nil, errors.Join(operate.OfBundle(path, err), file.Close())
	}
	return file, s, nil
}

// pageOf returns the transfer record of an unverified bundle.
func pageOf(path string, file *bundle.File, s *record.Summary) record.Page {
	p := record.Page{Summary: s, File: filepath.Base(path)}
	if base, ok := strings.CutSuffix(p.File, ".001"); ok {
		p.File, p.Volumes = base, record.Volumes(base, file.Sizes())
	}
	return p
}

func printSummary(w io.Writer, s *record.Summary) {
	fmt.Fprintf(w, "  identity  %s\n", s.Bundle.Digest)
	fmt.Fprintf(w, "  bundle    %q %q for %q\n", s.Bundle.Name, s.Bundle.Version, s.Bundle.Platforms)
	fmt.Fprintf(w, "  channel   %q, sequence %d, created %s\n", s.Bundle.Channel, s.Bundle.Sequence, s.Bundle.Created)
	for _, g := range s.Signatures {
		fmt.Fprintf(w, "  signature %s  (not checked)\n", g.Fingerprint)
	}
	for _, i := range s.Images {
		fmt.Fprintf(w, "  image     %q %s\n", i.Reference, i.Digest)
		for _, m := range i.Manifests {
			if m.Platform != "" {
				fmt.Fprintf(w, "              %q %s\n", m.Platform, m.Digest)
			}
		}
	}
	for _, c := range s.Charts {
		fmt.Fprintf(w, "  chart     %q %q of %q\n", c.Name, c.Version, c.Repository)
	}
	for _, p := range s.Plugins {
		signed := "with its signature"
		if p.Signature == "" {
			signed = "without a signature"
		}
		fmt.Fprintf(w, "  plugin    %q %q, %s\n", p.ID, p.Version, signed)
	}
	for _, f := range s.Files {
		fmt.Fprintf(w, "  file      %q %s, %s bytes\n", f.Path, f.Mode, commas(f.Size))
	}
	for _, b := range s.SBOMs {
		if b.Of != "" {
			fmt.Fprintf(w, "  sbom      %q %q %s\n", b.Of, b.Format, b.Digest)
		}
	}
	fmt.Fprintf(w, "  content   %d blobs, %s bytes\n", s.Blobs, commas(s.Bytes))
	if s.Changes != nil {
		printNews(w, s.Changes)
	}
}

// printNews prints the changes, one line each.
func printNews(w io.Writer, c *record.Changes) {
	fmt.Fprintf(w, "Against %q %q, which is not verified either\n", c.Against.Name, c.Against.Version)
	fmt.Fprintf(w, "  identity  %s\n", c.Against.Digest)
	for _, of := range []struct {
		name string
		list []record.Change
	}{{"image", c.Images}, {"chart", c.Charts}, {"plugin", c.Plugins}, {"file", c.Files}} {
		for _, x := range of.list {
			fmt.Fprintf(w, "  %-9s %s %q", of.name, x.What, x.Name)
			if x.Was != "" && x.Was != x.Now {
				fmt.Fprintf(w, ", before %q", x.Was)
			}
			fmt.Fprintf(w, ", %s bytes are new\n", commas(x.NewBytes))
		}
	}
	fmt.Fprintf(w, "  new       %s bytes; %d things are as they were\n", commas(c.NewBytes), c.Same)
}

// maxDocument is the maximum size of an SBOM or provenance document, in bytes.
const maxDocument = 64 << 20

// inspectDocument prints the document of the given artifact type. The document must be valid
// JSON; characters that a terminal would obey are escaped.
func (u *ui) inspectDocument(path, artifactType string) (err error) {
	file, err := bundle.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	head, err := bundle.ReadHead(file, file.Size())
	if err != nil {
		return operate.OfBundle(path, err)
	}
	r, err := bundle.NewReader(file, file.Size(), head)
	if err != nil {
		return operate.OfBundle(path, err)
	}
	data, err := r.Document(artifactType, maxDocument)
	if err != nil {
		return operate.OfBundle(path, err)
	}
	if data == nil {
		return wrongUsage("%s carries no such document", path)
	}
	if !json.Valid(data) || !utf8.Valid(data) {
		return operate.OfBundle(path, fmt.Errorf("%w: the document is no JSON", bundle.ErrFormat))
	}
	u.warn("UNVERIFIED: this is what the file says of itself; check it with oob-bundle verify")
	if _, err := io.WriteString(u.out, printableJSON(string(data))+"\n"); err != nil {
		return fmt.Errorf("the document could not be written: %v", err) //nolint:errorlint // ENOSPC from stdout must not get exit status 8
	}
	return nil
}
