package install_test

import (
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestNamesThatDifferInCase: tags, channels and names of values may differ only in case, and
// the host can read back its records of them.
func TestNamesThatDifferInCase(t *testing.T) {
	w := newFixture(t)
	for i, channel := range []string{"Rich", "rich"} {
		c := world.NewContent("case")
		c.Info.Channel, c.Info.Sequence = channel, int64(i+1)
		c.Add("docker.io/library/app:RC1", c.Image("linux/amd64", "upper "+channel))
		c.Add("docker.io/library/app:rc1", c.Image("linux/amd64", "lower "+channel))
		c.Doc.Host = &bundle.Host{
			Values:  []bundle.Value{{Name: "siteName", About: "x", Default: "a"}, {Name: "sitename", About: "x", Default: "b"}},
			Secrets: []bundle.Secret{{Name: "dbPassword", Length: 16}, {Name: "dbpassword", Length: 16}},
		}
		file := c.File(t, w.key)
		w.must(w.install(file, takeOver))
		if !w.must(w.install(file)).Nothing {
			t.Error("the second time it did something")
		}
		if _, err := ledger.Read(w.root); err != nil {
			t.Fatal(err)
		}
	}
}
