package manifests_test

import (
	"testing"

	"github.com/oob-bundle/oob-bundle/manifests"
)

func TestArchitectures(t *testing.T) {
	for _, name := range manifests.Architectures() {
		m, err := manifests.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range m.Deployments {
			s, err := m.Select(manifests.Choice{Deployment: d})
			if err != nil {
				t.Errorf("%s %s: %v", name, d, err)
				continue
			}
			t.Logf("%s %s %s: %d images %d plugins %d charts %d files, %v", name, s.Version, d, len(s.Images), len(s.Plugins), len(s.Charts), len(s.Files), s.Platforms)
		}
	}
}
