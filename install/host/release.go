package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/verify"
)

// Site describes the host that a deployment is laid out on.
type Site struct {
	Root string // as in install.Options
	// HostRoot is the directory whose etc/ gets the links. If it is "", that of the current
	// release is used, or FirstHostRoot, which may be "", if there is no current release.
	HostRoot, FirstHostRoot string
	Registry                string // the target's address
	// PlainHTTP reports whether the registry at an address is reached without TLS. Nil means
	// that no registry is.
	PlainHTTP func(address string) bool
	// Start requires that this host can start the release.
	Start bool
	// Values are the values of the site; nil means those of the current release.
	Values map[string]string
	// Installed is the ID of the installed release, used if the link current is lost.
	Installed string
}

// Release is a deployment in the form that this host gets.
type Release struct {
	ID    string
	Name  string
	Dir   string // absolute: NAME/releases/ID
	Notes []string

	bundle   *verify.Verified
	host     *bundle.Host
	site     Site
	base     string // absolute: ROOT/deployments/NAME
	data     string // absolute
	values   map[string]string
	given    map[string]string // without defaults
	platform bundle.Platform
	secrets  secrets
	files    []file
	health   []string // URLs that answer when the deployment is healthy
	cluster  []Step   // steps for a cluster, in order
	plain    bool     // the registry speaks no TLS
}

// file is a file of a release before it is written.
type file struct {
	path   string // relative, with slashes
	mode   fs.FileMode
	data   []byte            // content of a rendered or generated file, else nil
	blob   bundle.Descriptor // blob of the bundle that contains the content, if data is nil
	strip  int               // leading path elements to remove from an archive's names
	as     string            // AsArchive, or anything else
	secret bool              // the content depends on a secret of the site
	shown  []byte            // data with names in place of the secrets; nil if unknown
}

// Base returns the directory of a deployment.
func Base(root, name string) string { return filepath.Join(root, "deployments", name) }

// New determines the contents of a release and writes nothing. The error joins all problems
// that were found. They wrap ErrValues, bundle.ErrFormat or bundle.ErrPolicy, or come from the
// file system.
func New(v *verify.Verified, site Site) (*Release, error) {
	root, err := filepath.Abs(site.Root)
	if err != nil {
		return nil, err
	}
	site.Root = root
	if site.HostRoot, err = site.hostRoot(v.Deployment.Name); err != nil {
		return nil, err
	}
	d := v.Deployment
	r := &Release{Name: d.Name, bundle: v, host: d.Host, site: site, base: Base(root, d.Name)}
	if r.host == nil {
		r.host = &bundle.Host{}
	}
	if err := r.setValues(); err != nil {
		return nil, err
	}
	if a := r.values[valueRegistry]; a != "" {
		r.site.Registry = a
	}
	r.plain = site.PlainHTTP != nil && site.PlainHTTP(r.site.Registry)
	own := *r.host // do not change the bundle's document
	own.Links = slices.DeleteFunc(slices.Clone(own.Links), func(l bundle.Link) bool { return l.If != "" && r.values[l.If] != "true" })
	r.host = &own
	r.platform = hostPlatform(v.Info.Platforms)
	r.ID = r.id()
	r.Dir = filepath.Join(r.base, "releases", r.ID)
	if err := r.setSecrets(); err != nil {
		return nil, err
	}
	if err := r.collect(); err != nil {
		return nil, err
	}
	return r, errors.Join(r.checkMoved(), r.checkPostgres(), r.checkStart())
}

// setValues completes the values of the site and determines the data directory.
func (r *Release) setValues() (err error) {
	if r.given = r.site.Values; r.given == nil {
		if r.given, err = r.earlierValues(); err != nil {
			return err
		}
	}
	var problems []string
	r.values, problems = complete(r.host.Values, r.given)
	if len(problems) > 0 {
		return fmt.Errorf(
			"%w:\n  %s\noob-bundle values BUNDLE writes what there is to fill in; give it with --values",
			ErrValues, strings.Join(problems, "\n  "),
		)
	}
	if r.data = r.values[valueData]; r.data == "" {
		r.data = filepath.Join(r.base, "data")
	}
	return checkData(r.site.Root, r.base, r.data)
}

// setSecrets reads the passwords of the site and generates the missing ones.
func (r *Release) setSecrets() error {
	old, err := readSecrets(r.base)
	if err != nil {
		return err
	}
	if len(old) == 0 && len(r.host.Secrets) > 0 {
		if err := r.checkNoSecrets(r.site.Root); err != nil {
			return err
		}
	}
	r.secrets, err = old.add(r.host.Secrets)
	return err
}

// checkMoved refuses a new data directory that would leave the current release's data behind.
func (r *Release) checkMoved() error {
	id, err := Current(r.site.Root, r.Name)
	if err != nil || id == "" {
		return err
	}
	current, err := ReadRelease(r.site.Root, r.Name, id)
	if err != nil && Lost(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return CheckMoved(current.Data, r.data)
}

// CheckMoved refuses a change from a data directory with data to an empty one: the programs
// would start with an empty database. Errors wrap ErrValues, or come from the file system.
func CheckMoved(from, to string) error {
	if resolved(from) == resolved(to) {
		return nil
	}
	if has, err := holds(from); err != nil || !has {
		return err
	}
	if has, err := holds(to); err != nil || has {
		return err
	}
	return fmt.Errorf(
		"%w:\n  %s: what programs keep is in %s, and in %s there is nothing; stop them and move it there first, or name the directory as it was",
		ErrValues, bundle.ValueData, from, to,
	)
}

// holds reports whether a directory contains anything but directories. It reports true for a
// directory that must not be read.
func holds(dir string) (bool, error) {
	found := errors.New("something")
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() || errors.Is(err, fs.ErrPermission) {
			return found
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if errors.Is(err, found) {
		return true, nil
	}
	return false, err
}

// CheckApart refuses a data directory that is another deployment's, contains it or is in it.
// Two databases that run on the same files destroy them.
func (r *Release) CheckApart(other *About) error {
	mine, theirs := resolved(r.data), resolved(other.Data)
	if other.Data == "" || !within(mine, theirs) && !within(theirs, mine) {
		return nil
	}
	return fmt.Errorf("%w:\n  %s: %s and %s, where %s keeps its data, hold one another; every deployment needs a directory of its own",
		ErrValues, bundle.ValueData, r.data, other.Data, other.Name)
}

// Lost reports whether err means that a record of this host is missing or damaged. Its content
// is unknown then, and trying again does not help. A failing disk is another error.
func Lost(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrState) }

// checkNoSecrets refuses to generate new passwords if the current release was made with
// passwords: its programs and their data know only those.
func (r *Release) checkNoSecrets(root string) error {
	id, err := Current(root, r.Name)
	if err != nil || id == "" {
		return err
	}
	before, err := ReadRelease(root, r.Name, id)
	if err != nil && !Lost(err) {
		return err
	}
	if before != nil && !before.Secrets {
		return nil
	}
	return fmt.Errorf(
		"%w: %s is gone, and release %s was made with it; put it back from a backup, or uninstall first",
		ErrValues, secretsPath(r.base), id,
	)
}

// hostRoot returns the absolute directory for links, or "".
func (s Site) hostRoot(name string) (string, error) {
	if s.HostRoot != "" {
		return filepath.Abs(s.HostRoot)
	}
	id, err := Current(s.Root, name)
	if id == "" {
		id = s.Installed
	}
	if err != nil {
		return "", err
	}
	if id == "" {
		return s.FirstHostRoot, nil
	}
	about, err := ReadRelease(s.Root, name, id)
	if err != nil && Lost(err) {
		return s.FirstHostRoot, nil
	}
	if err != nil {
		return "", err
	}
	return about.HostRoot, nil
}

// id returns a hash of everything that the release depends on.
func (r *Release) id() string {
	data, err := bundle.Encode(struct {
		Identity bundle.Digest     `json:"identity"`
		Values   map[string]string `json:"values"`
		Registry string            `json:"registry"`
		Plain    bool              `json:"plainHTTP"`
		HostRoot string            `json:"hostRoot,omitempty"`
		// Digests of the site's files, if a cluster gets their content.
		Files map[string]bundle.Digest `json:"files,omitempty"`
	}{r.bundle.Identity, r.values, r.site.Registry, r.plain, r.site.HostRoot, r.siteFiles()})
	if err != nil {
		panic(err) // cannot fail: the struct contains only strings, booleans and maps of strings
	}
	return bundle.DigestOf(data).Short()
}

// siteFiles returns the digests of the site's files for a Kubernetes deployment, which puts
// their content into the cluster. It skips unreadable files: their use reports the error.
func (r *Release) siteFiles() map[string]bundle.Digest {
	if r.bundle.Deployment.Form != "kubernetes" {
		return nil
	}
	files := map[string]bundle.Digest{}
	for _, v := range r.host.Values {
		if v.Kind != "file" || r.values[v.Name] == "" {
			continue
		}
		if data, err := disk.ReadFile(r.values[v.Name], maxSiteFile); err == nil {
			files[v.Name] = bundle.DigestOf(data)
		}
	}
	return files
}

func (r *Release) earlierValues() (map[string]string, error) {
	id, err := Current(r.site.Root, r.Name)
	if id == "" {
		id = r.site.Installed
	}
	if err != nil || id == "" {
		return map[string]string{}, err
	}
	about, err := ReadRelease(r.site.Root, r.Name, id)
	if err != nil && Lost(err) {
		return nil, fmt.Errorf("%w: the values of release %s are lost with its %s; give them with --values", ErrValues, id, bundle.ReleaseFile)
	}
	if err != nil {
		return nil, err
	}
	given := about.Given
	if given == nil {
		given = about.Values
	}
	// A newer bundle may have fewer values.
	maps.DeleteFunc(given, func(name, _ string) bool {
		return !slices.ContainsFunc(r.host.Values, func(v bundle.Value) bool { return v.Name == name })
	})
	return given, nil
}

// Size returns the release's size in bytes. An archive counts with its packed size.
func (r *Release) Size() int64 {
	total := int64(0)
	for _, f := range r.files {
		total += max(int64(len(f.data)), f.blob.Size)
	}
	return total
}

// content returns a reader of a file's content.
func (r *Release) content(f file) (io.Reader, error) {
	if f.data != nil {
		return bytes.NewReader(f.data), nil
	}
	m, ok := r.bundle.Place(f.blob.Digest)
	if !ok {
		return nil, fmt.Errorf("%w: blob %s is not in the bundle", bundle.ErrFormat, f.blob.Digest)
	}
	return r.bundle.Content(m), nil
}

// Services returns the services of the release's Compose file, or the units that it links.
func (r *Release) Services() []string {
	list := []string{}
	for _, f := range r.files {
		if f.path != "compose.yaml" || f.data == nil {
			continue
		}
		var doc struct {
			Services map[string]any `yaml:"services"`
		}
		text := f.data
		if f.secret {
			text = f.shown
		}
		if err := yaml.Load(text, &doc); err == nil {
			list = append(list, sortedKeys(doc.Services)...)
		}
	}
	for _, l := range r.host.Links {
		if strings.HasSuffix(l.Path, ".service") || strings.HasSuffix(l.Path, ".container") {
			list = append(list, path.Base(l.Path))
		}
	}
	return list
}
