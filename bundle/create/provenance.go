package create

import (
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// Types of the SLSA provenance (slsa.dev/spec/v1.1/provenance) in an in-toto
// statement (in-toto/attestation spec/v1/statement.md).
type (
	statement struct {
		Type          string     `json:"_type"`
		Subject       []resource `json:"subject"`
		PredicateType string     `json:"predicateType"`
		Predicate     provenance `json:"predicate"`
	}
	provenance struct {
		BuildDefinition buildDefinition `json:"buildDefinition"`
		RunDetails      runDetails      `json:"runDetails"`
	}
	buildDefinition struct {
		BuildType            string     `json:"buildType"`
		ExternalParameters   parameters `json:"externalParameters"`
		ResolvedDependencies []resource `json:"resolvedDependencies"`
	}
	parameters struct {
		Manifest         resource          `json:"manifest"`
		Deployment       string            `json:"deployment,omitempty"`
		Platforms        []string          `json:"platforms"`
		With             []string          `json:"with,omitempty"`
		Without          []string          `json:"without,omitempty"`
		Set              map[string]string `json:"set,omitempty"`
		WithoutReferrers bool              `json:"withoutReferrers,omitempty"`
		Channel          string            `json:"channel"`
		Sequence         int64             `json:"sequence"`
	}
	runDetails struct {
		Builder builder `json:"builder"`
	}
	builder struct {
		ID      string            `json:"id"`
		Version map[string]string `json:"version"`
	}
	resource struct {
		Name   string            `json:"name,omitempty"`
		URI    string            `json:"uri,omitempty"`
		Digest map[string]string `json:"digest"`
	}
)

// provenanceOf returns the provenance of a bundle. The result depends only on the lock.
// Its subjects are the contents of the bundle. The bundle itself cannot be a subject,
// because it contains the statement.
func provenanceOf(l *manifests.Lock) ([]byte, error) {
	var all []resource
	add := func(name, uri string, d bundle.Digest) {
		all = append(all, resource{Name: name, URI: uri, Digest: map[string]string{"sha256": d.Hex()}})
	}
	for _, i := range l.Images {
		add(i.Reference, "oci://"+i.Reference, i.Digest)
		for _, r := range i.Referrers {
			add(i.Reference+" "+r.ArtifactType, "", r.Digest)
		}
	}
	for _, c := range l.Charts {
		add(c.Reference, c.Repository, c.Digest)
		for _, r := range c.Referrers {
			add(c.Reference+" "+r.ArtifactType, "", r.Digest)
		}
	}
	for _, p := range l.Plugins {
		add(p.ID+" "+p.Version, uri(p.Source), p.Digest)
	}
	for _, f := range l.Files {
		add(f.Path, uri(f.Source), f.Digest)
	}
	if all == nil {
		all = []resource{}
	}
	subjects := make([]resource, len(all))
	for n, r := range all {
		subjects[n] = resource{Name: r.Name, Digest: r.Digest}
	}
	return bundle.Encode(statement{
		Type: "https://in-toto.io/Statement/v1", Subject: subjects, PredicateType: "https://slsa.dev/provenance/v1",
		Predicate: provenance{
			BuildDefinition: buildDefinition{
				BuildType: "https://oobbundle.dev/create/v1",
				ExternalParameters: parameters{
					Manifest:   resource{Name: l.Metadata.Name + " " + l.Metadata.Version, Digest: map[string]string{"sha256": l.Manifest.Hex()}},
					Deployment: l.Deployment, Platforms: l.Platforms, With: l.With, Without: l.Without, Set: l.Set,
					WithoutReferrers: l.WithoutReferrers, Channel: l.Channel, Sequence: l.Sequence,
				},
				ResolvedDependencies: all,
			},
			RunDetails: runDetails{
				Builder: builder{ID: "https://github.com/oob-bundle/oob-bundle", Version: map[string]string{"oob-bundle": l.Program}},
			},
		},
	})
}

// uri returns source if it is a URL, or "".
func uri(source string) string {
	if strings.Contains(source, "://") {
		return source
	}
	return ""
}
