package manifests

import (
	"github.com/oob-bundle/oob-bundle/bundle"
)

// Choice contains the command-line options that apply to a manifest. The zero value selects
// the manifest's defaults.
type Choice struct {
	Deployment string            // one of Manifest.Deployments; empty means the first
	Platforms  []bundle.Platform // none means the first of the manifest, if it lists any
	With       []string          // optional components to add
	Without    []string          // components that the site already has
	Set        map[string]string // versions.NAME, settings.NAME, sha256.NAME, or keys.NAME (a path)
}

// Selection is a manifest after a choice: all placeholders are replaced, and every rule that
// needs no network has been applied.
type Selection struct {
	Name, Version string
	Manifest      bundle.Digest
	Deployment    string            // empty if the manifest has none
	Platforms     []bundle.Platform // empty if neither the choice nor the manifest names one
	Versions      map[string]string
	Settings      map[string]string
	Components    []WantedComponent
	Images        []WantedImage // each reference once
	Plugins       []WantedPlugin
	Charts        []WantedChart
	Files         []WantedFile
	Host          *bundle.Host // nil if no component has host data
	VerifyImages  []WantedSignature
	External      []External

	releases []Releases
	versions map[string]string // as chosen
}

// WantedComponent is a selected component. Its content is given as indexes into the lists of
// the selection.
type WantedComponent struct {
	Name, Title, Source            string
	Optional                       bool
	Images, Plugins, Charts, Files []int
}

// WantedImage is a reference to resolve.
type WantedImage struct {
	Reference bundle.Reference
	Follows   *Follows

	version string // name of the version used as its tag
}

// WantedPlugin is a plugin to fetch and inspect.
type WantedPlugin struct {
	URL       string // URL, or a path on this machine
	Signature string // URL or path, as above; empty for none
	Keys      []Key  // one of them must have signed the plugin
	SHA256    string // 64 hexadecimal digits, or empty
	ID        string // required id in plugin.json; empty accepts any
	Version   string
	Server    string // version of the server that runs the plugin; empty if unknown

	version, server string // names of the versions used in URL and Server
}

// Key is a public key with the name that the manifest gives it.
type Key struct {
	Name string
	Data []byte
}

// WantedChart is a chart to fetch and inspect.
type WantedChart struct {
	Repository, Name, Version string
	SHA256                    string // 64 hexadecimal digits, or empty
	Values                    map[string]any
	UnusedImages              []string
}

// WantedFile is a file to carry.
type WantedFile struct {
	Source   string // a URL, a path on this machine, or a CatalogueFile
	Path     string // on the site, relative, slashes
	Mode     uint32 // permissions
	As       string // as in bundle.HostFile
	Strip    int
	Platform *bundle.Platform // of the hosts that need the file; nil means all
	SHA256   string           // 64 hexadecimal digits; empty for a local file, or with FirstUse
	FirstUse bool             // accept the first download, and lock it
	Size     int64            // bytes; 0 if unknown
	Pin      string           // NAME in --set sha256.NAME that sets the file's hash; may be empty
}

// WantedSignature requires a signature on images.
type WantedSignature struct {
	Images string // pattern
	Keys   []Key
}
