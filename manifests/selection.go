package manifests

import (
	"github.com/oob-bundle/oob-bundle/bundle"
)

// Choice is what the command line says about a manifest. The zero value takes
// what the manifest has as its defaults.
type Choice struct {
	Deployment string            // one of Manifest.Deployments; empty means the first
	Platforms  []bundle.Platform // none means the manifest's first, if it says any
	With       []string          // optional components
	Without    []string          // components that the site has already
	Set        map[string]string // versions.NAME, settings.NAME, sha256.NAME, or keys.NAME (a path)
}

// Selection is what a manifest means once everything is chosen: no placeholder
// is left, and every rule that needs no network has been applied.
type Selection struct {
	Name, Version string
	Manifest      bundle.Digest
	Deployment    string            // empty if the manifest knows none
	Platforms     []bundle.Platform // never empty
	Versions      map[string]string
	Settings      map[string]string
	Components    []WantedComponent
	Images        []WantedImage // each reference once
	Plugins       []WantedPlugin
	Charts        []WantedChart
	Files         []WantedFile
	Host          *bundle.Host // nil if nothing is said about the host
	VerifyImages  []WantedSignature
	External      []External

	releases []Releases
	versions map[string]string // as chosen
}

// WantedComponent is a component that is carried. Of its content it has the
// indexes into the lists of the selection.
type WantedComponent struct {
	Name, Title, Source            string
	Optional                       bool
	Images, Plugins, Charts, Files []int
}

// WantedImage is a reference to resolve.
type WantedImage struct {
	Reference bundle.Reference
	Follows   *Follows

	version string // name of the version that is its tag
}

// WantedPlugin is a plugin to fetch and look into.
type WantedPlugin struct {
	URL       string // or an absolute path on this machine
	Signature string // the same; empty for none
	Keys      []Key  // of which one has to have signed
	SHA256    string // 64 digits, or empty
	ID        string // as plugin.json must say; empty takes any
	Version   string
	Server    string // version of the server it runs in; empty if that is unknown

	version, server string // names of the versions
}

// Key is a public key with the name that the manifest gives it.
type Key struct {
	Name string
	Data []byte
}

// WantedChart is a chart to fetch and look into.
type WantedChart struct {
	Repository, Name, Version string
	SHA256                    string // 64 digits, or empty
	Values                    map[string]any
	UnusedImages              []string
}

// WantedFile is a file to carry.
type WantedFile struct {
	Source   string // a URL, an absolute path on this machine, or a CatalogueFile
	Path     string // on the site, relative, slashes
	Mode     uint32 // permissions
	As       string // as in bundle.HostFile
	Strip    int
	Platform *bundle.Platform // of the hosts it is for; nil is all
	SHA256   string           // 64 digits; empty for a local file, or with FirstUse
	FirstUse bool             // whatever comes is accepted, and locked
	Size     int64            // bytes; 0 if unknown
	Pin      string           // the name by which --set sha256.NAME gives its hash; may be empty
}

// WantedSignature asks for a signature on images.
type WantedSignature struct {
	Images string // pattern
	Keys   []Key
}
