package manifests

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
)

// catalogueFiles contains the catalogue's documents: one for each reference architecture, and
// the documents that these include.
//
//go:embed catalogue
var catalogueFiles embed.FS

func catalogueFS() fs.FS {
	sub, err := fs.Sub(catalogueFiles, "catalogue")
	if err != nil {
		panic(err) // the name is a constant
	}
	return sub
}

// fromCatalogue is the prefix of a source that names an embedded file of the catalogue.
const fromCatalogue = "catalogue:"

// CatalogueFile returns the content of an embedded catalogue file. Source is a WantedFile's;
// ok is false if it does not name a catalogue file.
func CatalogueFile(source string) (data []byte, ok bool, err error) {
	name, ok := strings.CutPrefix(source, fromCatalogue)
	if !ok {
		return nil, false, nil
	}
	data, err = catalogueFiles.ReadFile("catalogue/" + name)
	return data, true, err
}

// architectures lists the names of the reference architectures in display order.
var architectures = []string{"application", "out-of-band", "mission-partner", "ddil", "sovereign-teams"}

// Architectures returns the names of the reference architectures.
func Architectures() []string { return slices.Clone(architectures) }

// Open reads a reference architecture by its name, or a manifest by its path.
func Open(nameOrPath string) (*Manifest, error) {
	if !slices.Contains(architectures, nameOrPath) {
		m, err := Read(nameOrPath)
		if err != nil && !strings.ContainsAny(nameOrPath, "./\\") {
			return nil, choiceError(
				"%q is neither a file nor one of the reference architectures, which are %s",
				nameOrPath, strings.Join(architectures, ", "),
			)
		}
		return m, err
	}
	data, err := catalogueFiles.ReadFile("catalogue/" + nameOrPath + ".yaml")
	if err != nil {
		return nil, err
	}
	return open(data, &document{name: "catalogue:" + nameOrPath + ".yaml", files: catalogueFS()})
}

// Everything returns the names of all optional components of a deployment.
func (m *Manifest) Everything(deployment string) []string {
	s := &selector{m: m, out: &Selection{Deployment: deployment}}
	var list []string
	for _, c := range m.resolved() {
		if c.Optional && s.applies(c.Deployments) {
			list = append(list, c.Name)
		}
	}
	return list
}

// Describe returns the whole content for the deployment and platforms of a choice, optional
// components included. It does not apply rules, and does not refuse content that is missing
// for a platform.
func (m *Manifest) Describe(c Choice) (*Selection, error) {
	s, err := m.newSelector(c)
	if err != nil {
		return nil, err
	}
	s.collect(m.resolved(), true)
	s.metadata()
	return s.out, join(s.problems)
}
