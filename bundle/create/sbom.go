package create

import (
	"bytes"
	"fmt"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/package-url/packageurl-go"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// sbomOf returns the SBOM of a bundle as a CycloneDX 1.6 document: images, charts,
// plugins and files with digest and source. The result depends only on the lock: it has
// no time and no serial number, which are optional in the specification.
func sbomOf(l *manifests.Lock) ([]byte, error) {
	doc := cdx.NewBOM()
	doc.Metadata = &cdx.Metadata{
		Component: &cdx.Component{Type: cdx.ComponentTypeApplication, Name: l.Metadata.Name, Version: l.Metadata.Version, BOMRef: "bundle"},
		Tools:     &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: "oob-bundle", Version: l.Program}}},
	}
	var list []cdx.Component
	for _, i := range l.Images {
		ref, err := bundle.ParseReference(i.Reference)
		if err != nil {
			return nil, err
		}
		list = append(list, imageComponent(ref, i))
	}
	for _, c := range l.Charts {
		purl := packageurl.NewPackageURL(
			"helm",
			"",
			c.Name, c.Version,
			packageurl.QualifiersFromMap(map[string]string{"repository_url": c.Repository}),
			"",
		)
		list = append(
			list,
			component(cdx.ComponentTypeApplication, c.Name, c.Version, purl.String(), c.Digest, c.Repository, c.Size, []string{c.Check}),
		)
	}
	for _, p := range l.Plugins {
		purl := packageurl.NewPackageURL("generic", "mattermost-plugin", p.ID, p.Version, sourceQualifiers(p.Source, p.Digest), "")
		list = append(list, component(cdx.ComponentTypeApplication, p.ID, p.Version, purl.String(), p.Digest, p.Source, p.Size, p.Checks))
	}
	for _, f := range l.Files {
		name := f.Path[strings.LastIndexByte(f.Path, '/')+1:]
		purl := packageurl.NewPackageURL("generic", "", name, "", sourceQualifiers(f.Source, f.Digest), "")
		c := component(cdx.ComponentTypeFile, f.Path, "", purl.String(), f.Digest, f.Source, f.Size, []string{f.Check})
		list = append(list, c)
	}
	for n := range list {
		list[n].BOMRef = fmt.Sprintf("%d-%s", n+1, list[n].Name) // bom-ref must be unique
	}
	doc.Components = &list
	var buf bytes.Buffer
	e := cdx.NewBOMEncoder(&buf, cdx.BOMFileFormatJSON)
	e.SetEscapeHTML(false)
	if err := e.EncodeVersion(doc, cdx.SpecVersion1_6); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func sourceQualifiers(source string, d bundle.Digest) packageurl.Qualifiers {
	q := map[string]string{"checksum": string(d)}
	if strings.Contains(source, "://") {
		q["download_url"] = source
	}
	return packageurl.QualifiersFromMap(q)
}

// imageComponent returns the component of an image, with a purl of the OCI type
// (package-url/purl-spec, types/oci).
func imageComponent(ref bundle.Reference, i manifests.LockedImage) cdx.Component {
	name := ref.Name[strings.LastIndexByte(ref.Name, '/')+1:]
	q := map[string]string{"repository_url": ref.Repository()}
	if ref.Tag != "" {
		q["tag"] = ref.Tag
	}
	purl := packageurl.NewPackageURL("oci", "", name, string(i.Digest), packageurl.QualifiersFromMap(q), "")
	c := component(cdx.ComponentTypeContainer, ref.Repository(), ref.Tag, purl.String(), i.Digest, i.Reference, 0, i.Checks)
	var properties []cdx.Property
	if c.Properties != nil {
		properties = *c.Properties
	}
	for _, m := range i.Carried {
		properties = append(properties, cdx.Property{Name: "oobbundle:manifest", Value: strings.TrimSpace(m.Platform + " " + string(m.Digest))})
	}
	for _, r := range i.Referrers {
		properties = append(
			properties,
			cdx.Property{Name: "oobbundle:referrer", Value: strings.TrimSpace(r.ArtifactType + " " + string(r.Digest))},
		)
	}
	if len(properties) > 0 {
		c.Properties = &properties
	}
	return c
}

// component returns a component. size is the size of the content in bytes; 0 means
// unknown.
func component(
	kind cdx.ComponentType, name, version, purl string, d bundle.Digest, source string, size int64, checks []string,
) cdx.Component {
	c := cdx.Component{
		Type: kind, Name: name, Version: version, PackageURL: purl,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: d.Hex()}},
	}
	var properties []cdx.Property
	if size > 0 {
		properties = append(properties, cdx.Property{Name: "oobbundle:size", Value: fmt.Sprint(size)})
	}
	properties = append(properties, cdx.Property{Name: "oobbundle:source", Value: source})
	for _, check := range checks {
		properties = append(properties, cdx.Property{Name: "oobbundle:check", Value: check})
	}
	c.Properties = &properties
	return c
}
