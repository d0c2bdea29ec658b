package create_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestAbout checks the SBOM and the provenance of a bundle: both name all content by
// digest and contain no time.
func TestAbout(t *testing.T) {
	archive := world.PluginFacts("com.example.demo", "1.2.3").Archive()
	chart := world.Chart("acme", "0.1.0")
	s := newWeb(t, map[string][]byte{
		"/p/demo.tar.gz":         archive,
		"/charts/acme-0.1.0.tgz": chart,
		"/charts/index.yaml": []byte(
			"apiVersion: v1\nentries:\n  acme:\n  - name: acme\n    version: 0.1.0\n    digest: " + hexOf(chart) + "\n    urls: [acme-0.1.0.tgz]\n",
		),
	})
	up := world.NewRegistry(t, nil)
	ref := up.Push(t, "team/app:1", world.Image("linux/amd64", world.Layer(file("x"))))
	o := intake(t, s, "    images: ["+ref+"]\n    plugins: [{url: \"$WEB/p/demo.tar.gz\", sha256: "+hexOf(archive)+"}]\n"+
		"    charts: [{repository: \"$WEB/charts\", name: acme, version: 0.1.0}]\n    files: [{source: local.conf, path: etc/demo.conf}]\n")
	o.Source = world.Options(t, o.Manifest, world.NewKey(t), up, &world.Registry{Host: s.host()}).Source
	r, err := create.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	reader, d, _ := read(t, r.Output)
	sbom, err := reader.Document(bundle.TypeSBOM, 1<<20)
	if err != nil || sbom == nil {
		t.Fatal(err)
	}
	var doc cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(sbom), cdx.BOMFileFormatJSON).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if doc.SerialNumber != "" || doc.Metadata.Timestamp != "" {
		t.Error("it says when it was made")
	}
	want := map[string]string{ // hash → prefix of the purl
		d.Images[0].Digest.Hex():           "pkg:oci/app@sha256:" + d.Images[0].Digest.Hex() + "?repository_url=",
		hexOf(archive):                     "pkg:generic/mattermost-plugin/com.example.demo@1.2.3?checksum=sha256",
		hexOf(chart):                       "pkg:helm/acme@0.1.0?repository_url=",
		hexOf([]byte("from the author\n")): "pkg:generic/demo.conf?checksum=sha256",
	}
	for _, c := range *doc.Components {
		hash := (*c.Hashes)[0].Value
		if !strings.HasPrefix(c.PackageURL, want[hash]) || want[hash] == "" {
			t.Errorf("%s is %s, want %s", c.Name, c.PackageURL, want[hash])
		}
		delete(want, hash)
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}
	data, err := reader.Document(bundle.TypeProvenance, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var statement struct {
		PredicateType string `json:"predicateType"`
		Subject       []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(data, &statement); err != nil {
		t.Fatal(err)
	}
	if statement.PredicateType != "https://slsa.dev/provenance/v1" || len(statement.Subject) != 4 ||
		statement.Subject[0].Digest["sha256"] != d.Images[0].Digest.Hex() {
		t.Errorf("%s", data)
	}
	// The lock must give the same bundle again, at another path.
	o.Lock, o.Output = r.Lock, o.Output+".again"
	again, err := create.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if again.Identity != r.Identity {
		t.Error("the same lock gave another bundle")
	}
}
