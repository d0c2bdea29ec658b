package record

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// Page is the content of the transfer record.
type Page struct {
	*Summary
	File    string   // base name; the common name if there are volumes
	Volumes []Volume // empty if the bundle is one file
	Made    *Made    // set by the run that made the bundle; nil marks the page as unverified
}

// Volume is one of the files of a bundle in volumes.
type Volume struct {
	Name string
	Size int64 // bytes
}

// Volumes returns the volumes of a bundle with the common name base and the given sizes.
func Volumes(base string, sizes []int64) []Volume {
	var list []Volume
	for n, size := range sizes {
		list = append(list, Volume{bundle.VolumeName(base, n+1), size})
	}
	return list
}

// Made contains the facts known only to the run that made the bundle.
type Made struct {
	Program string // version
	Key     string // name of the private key's file
	Public  string // name of the public key's file
	Beside  []Beside
}

// Beside is a file that accompanies the bundle.
type Beside struct {
	Name   string
	About  string
	Size   int64 // bytes
	Digest bundle.Digest
}

// FileName returns the path of the page that create writes beside a bundle.
func FileName(output string) string { return output + ".html" }

// Mark is the start of every page. A file that starts with Mark may be replaced.
const Mark = "<!doctype html>\n<!-- oob-bundle transfer record -->\n"

// Replaceable returns an error if path exists and is not a transfer record. The error
// wraps fs.ErrExist, or is the file system's.
func Replaceable(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	other := fmt.Errorf("%w: %s is not a transfer record; move it away, or choose another name", fs.ErrExist, path)
	if !fi.Mode().IsRegular() {
		return other
	}
	f, err := disk.OpenRegular(path)
	if err != nil {
		return err
	}
	start := make([]byte, len(Mark))
	_, err = io.ReadFull(f, start)
	if err = errors.Join(ignoreShort(err), f.Close()); err != nil {
		return err
	}
	if string(start) != Mark {
		return other
	}
	return nil
}

func ignoreShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

//go:embed page.html
var pageTemplate string

// HTML returns the page as one document without scripts and external resources. The
// result depends on p only.
func (p Page) HTML() ([]byte, error) {
	t, err := template.New("page").Funcs(template.FuncMap{
		"commas":    Commas,
		"human":     Human,
		"megabytes": megabytes,
		"percent":   percent,
		"join":      func(list []string) string { return strings.Join(list, ", ") },
	}).Parse(pageTemplate)
	if err != nil {
		return nil, err
	}
	p = visible(p)
	v, err := viewOf(p)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	buf.WriteString(Mark)
	if err := t.Execute(&buf, v); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// view is the data of the page template.
type view struct {
	Page
	Groups   [][]string
	QR       code
	Images   []imageRow // images and artifacts
	Evidence []evidenceRow
	Whole    []part
	Legend   []legendRow
	Commands []string
	Site     []string // names of the values that the site must supply
	News     []news
	Contents string
	About    []componentRow
}

type imageRow struct {
	Image
	Platforms string
	Own       int64
	Bar       []part
}

type evidenceRow struct {
	Of, Type string
	Digest   bundle.Digest
	Size     int64
}

type legendRow struct {
	Fill, Name string
	Count      string
	Bytes      int64
}

// news lists the changes of one kind of content.
type news struct {
	Kind string
	List []Change
}

type componentRow struct{ Name, Has string }

func viewOf(p Page) (*view, error) {
	v := &view{Page: p, Groups: groups(p.Bundle.Digest.Hex()), Commands: p.commands()}
	var err error
	if v.QR, err = qrOf(string(p.Bundle.Digest)); err != nil {
		return nil, err
	}
	var largest int64
	for _, i := range p.Images {
		largest = max(largest, i.Size)
	}
	images := 0
	for _, i := range p.Images {
		for _, e := range i.Evidence {
			v.Evidence = append(v.Evidence, evidenceRow{i.Reference, typeOf(e.Type, ""), e.Digest, e.Size})
		}
		switch i.Kind {
		case KindImage, KindArtifact:
			images++
			own := i.Size - i.Shared
			v.Images = append(v.Images, imageRow{i, i.platforms(), own, bar(largest, piece{own, "own"}, piece{i.Shared, "shared"})})
		case KindEvidence:
			v.Evidence = append(v.Evidence, evidenceRow{i.Reference, typeOf("", i.Reference), i.Digest, i.Size})
		}
	}
	s := p.Shares
	v.Whole = bar(
		p.Bytes,
		piece{s.Images, "own"},
		piece{s.Shared, "shared"},
		piece{s.Charts + s.Plugins + s.Files, "dots"},
		piece{s.Evidence + s.Documents, "rest"},
	)
	evidence := len(v.Evidence)
	v.Legend = []legendRow{
		{"own", "of one image", Commas(int64(images)), s.Images},
		{"shared", "shared by images, counted once", "", s.Shared},
		{"dots", "charts", Commas(int64(len(p.Charts))), s.Charts},
		{"dots", "plugins", Commas(int64(len(p.Plugins))), s.Plugins},
		{"dots", "files for hosts", Commas(int64(len(p.Files))), s.Files},
		{"rest", "upstream's signatures, attestations, SBOMs", Commas(int64(evidence)), s.Evidence},
		{"rest", "what the bundle says of itself", "", s.Documents},
	}
	v.Contents = countOf(images, len(p.Charts), len(p.Plugins), len(p.Files))
	if p.Changes != nil {
		v.News = newsOf(p.Changes)
	}
	if p.Host != nil {
		for _, value := range p.Host.Values {
			v.Site = append(v.Site, value.Name)
		}
	}
	for _, c := range p.Components {
		v.About = append(v.About, componentRow{c.Name, countOf(len(c.Images), len(c.Charts), len(c.Plugins), len(c.Files))})
	}
	return v, nil
}

// newsOf returns the changes by kind, without the unchanged kinds.
func newsOf(c *Changes) []news {
	var list []news
	for _, n := range []news{{"Image", c.Images}, {"Chart", c.Charts}, {"Plugin", c.Plugins}, {"File", c.Files}} {
		if len(n.List) > 0 {
			list = append(list, n)
		}
	}
	return list
}

// countOf returns the counts in words, such as "2 images, 1 chart".
func countOf(images, charts, plugins, files int) string {
	var parts []string
	for _, n := range []struct {
		n    int
		name string
	}{{images, "image"}, {charts, "chart"}, {plugins, "plugin"}, {files, "file"}} {
		switch {
		case n.n == 1:
			parts = append(parts, "1 "+n.name)
		case n.n > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", n.n, n.name))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "nothing of its own")
}

func (i Image) platforms() string {
	var list []string
	for _, m := range i.Manifests {
		if m.Platform != "" && m.Platform != "unknown/unknown" {
			list = append(list, m.Platform)
		}
	}
	return strings.Join(list, ", ")
}

// UnpackCommands returns shell commands that extract index.json and the n signatures
// from a bundle with tar, without this program.
func UnpackCommands(file string, volumes []Volume, n int) []string {
	from := func(member string) string {
		if len(volumes) == 0 {
			return "tar -xOf " + disk.ShellWord(file) + " " + member
		}
		return "cat " + disk.ShellWord(file) + ".[0-9][0-9][0-9] | tar -xOf - " + member
	}
	list := []string{from("index.json") + " >index.json"}
	if n == 1 {
		return append(list, from("signatures.jsonl")+" | head -1 >s.json")
	}
	for k := range n {
		list = append(list, fmt.Sprintf("%s | sed -n %dp >s%d.json", from("signatures.jsonl"), k+1, k+1))
	}
	return list
}

// commands returns shell commands that check identity and signatures without this program.
func (p Page) commands() []string {
	key := "KEY.pub"
	if p.Made != nil {
		key = disk.ShellWord(p.Made.Public)
	}
	list := UnpackCommands(p.File, p.Volumes, len(p.Signatures))
	list = append(list, "sha256sum index.json")
	for k := range p.Signatures {
		name := "s.json"
		if len(p.Signatures) > 1 {
			name = fmt.Sprintf("s%d.json", k+1)
		}
		list = append(list, "cosign verify-blob --key "+key+" --bundle "+name+" --insecure-ignore-tlog index.json")
	}
	return list
}
