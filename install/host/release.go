package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"net"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/verify"
)

// Site is where, and for whom, a deployment is laid out.
type Site struct {
	Root string // as in install.Options
	// HostRoot is the directory whose etc/ gets links; "" stands for that of the
	// current release, or where there is none for FirstHostRoot, which may be "", too.
	HostRoot, FirstHostRoot string
	Registry                string // the target's address
	// PlainHTTP reports whether a registry, by its address, is spoken to without TLS;
	// nil means that none is.
	PlainHTTP func(address string) bool
	// Start says that the release is going to be started here.
	Start bool
	// Values are the site's; nil stands for those of the current release.
	Values map[string]string
	// Installed is the release that counts as current where the link to it is lost.
	Installed string
}

// Release is a deployment as it will stand on this host.
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
	health   []string // URLs that answer when all is well
	cluster  []Step   // what a cluster gets, in this order
	plain    bool     // its registry speaks no TLS
}

// file is one of a release before it is written.
type file struct {
	path   string // relative, slashes
	mode   fs.FileMode
	data   []byte            // what it consists of, if that is at hand
	blob   bundle.Descriptor // of the bundle, otherwise
	strip  int               // of an archive
	as     string            // AsArchive, or anything else
	secret bool              // it depends on a password of the site
	shown  []byte            // data with the names of passwords instead of them; nil if unknown
}

// Base returns the directory of a deployment.
func Base(root, name string) string { return filepath.Join(root, "deployments", name) }

// New decides what a release consists of and writes nothing. The error holds
// every problem that was found; they wrap ErrValues, bundle.ErrFormat,
// bundle.ErrPolicy or the file system's.
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
	own := *r.host // the document stays as it is
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

// setValues completes the values of the site, and decides where its data is.
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

// setSecrets reads the passwords of the site, and makes those that are missing.
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

// checkMoved refuses to leave behind what programs keep where the current release has it.
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

// CheckMoved refuses to go from one data directory to another while the one has something
// and the other nothing: programs would begin anew, with an empty database. Errors wrap
// ErrValues, or are the file system's.
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

// holds reports whether there is something in a directory besides directories; one that
// is not to be looked into has something.
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

// CheckApart refuses a data directory of the release that is another deployment's, holds
// that, or is in it: two databases that run on the same files destroy them.
func (r *Release) CheckApart(other *About) error {
	mine, theirs := resolved(r.data), resolved(other.Data)
	if other.Data == "" || !within(mine, theirs) && !within(theirs, mine) {
		return nil
	}
	return fmt.Errorf("%w:\n  %s: %s and %s, where %s keeps its data, hold one another; every deployment needs a directory of its own",
		ErrValues, bundle.ValueData, r.data, other.Data, other.Name)
}

// Lost reports whether the error says that a record of this host is not there or damaged:
// nobody knows any more what it said, and trying again is no use. A disk that fails is
// another thing.
func Lost(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrState) }

// checkNoSecrets refuses to make new passwords where the current release was made with
// some: its programs and their data know only these.
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

// hostRoot returns the absolute directory of links, or "".
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

// checkStart looks whether this host can run the release: its platform, and the
// ports of a first one.
func (r *Release) checkStart() error {
	if !r.site.Start {
		return nil
	}
	var problems []error
	if own := (bundle.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}); !runs(own, r.platform) {
		problems = append(
			problems,
			fmt.Errorf("%w: it carries %s, and this host is %s", bundle.ErrPolicy, strings.Join(r.bundle.Info.PlatformNames(), ", "), own),
		)
	}
	problems = append(problems, r.checkUnits())
	if current, err := Current(r.site.Root, r.Name); err != nil || current != "" {
		return errors.Join(append(problems, err)...) // its ports are its own
	}
	for _, v := range r.host.Values {
		port := r.values[v.Name]
		if v.Kind != "port" || !slices.ContainsFunc(r.files, func(f file) bool {
			return f.path == "compose.yaml" && (bytes.Contains(f.data, []byte(`"`+port+":")) || bytes.Contains(f.data, []byte(":"+port+":")))
		}) {
			continue
		}
		l, err := net.Listen("tcp", ":"+port) //nolint:noctx // nothing is waited for
		if errors.Is(err, syscall.EADDRINUSE) {
			problems = append(
				problems,
				fmt.Errorf("%w: %s: something on this host listens on port %s already; stop it, or choose another port", ErrValues, v.Name, port),
			)
		}
		if err == nil {
			problems = append(problems, l.Close())
		}
	}
	return errors.Join(problems...)
}

// checkUnits looks whether podman will see the units of the release. Without that
// what the site wants it to run would be left to Docker.
func (r *Release) checkUnits() error {
	quadlet := slices.ContainsFunc(r.host.Links, func(l bundle.Link) bool { return strings.HasSuffix(l.Path, ".container") })
	if !quadlet || r.site.HostRoot != "" && filepath.Clean(r.site.HostRoot) == "/" {
		return nil
	}
	return fmt.Errorf(
		"%w: podman and systemd look for the units below /etc alone; to start them, give --host-root /, or leave --root away",
		ErrValues,
	)
}

// hostPlatform chooses the platform for this machine: the nearest that it runs, else the
// first.
func hostPlatform(carried []bundle.Platform) bundle.Platform {
	own := bundle.Platform{OS: "linux", Architecture: runtime.GOARCH}
	chosen, least := carried[0], math.MaxInt
	for _, p := range carried {
		if distance, ok := own.Runs(p); ok && distance < least {
			chosen, least = p, distance
		}
	}
	return chosen
}

// runs reports whether a machine runs what is built for a platform.
func runs(machine, built bundle.Platform) bool {
	_, ok := machine.Runs(built)
	return ok
}

// id is a hash of everything that a release depends on.
func (r *Release) id() string {
	data, err := bundle.Encode(struct {
		Identity bundle.Digest     `json:"identity"`
		Values   map[string]string `json:"values"`
		Registry string            `json:"registry"`
		Plain    bool              `json:"plainHTTP"`
		HostRoot string            `json:"hostRoot,omitempty"`
		// Content of the site's files, where a cluster gets it.
		Files map[string]bundle.Digest `json:"files,omitempty"`
	}{r.bundle.Identity, r.values, r.site.Registry, r.plain, r.site.HostRoot, r.siteFiles()})
	if err != nil {
		panic(err) // texts only
	}
	return bundle.DigestOf(data).Short()
}

// siteFiles returns the digests of the files that the site has named, of a deployment that
// puts their content into a cluster. One that cannot be read is reported where it is used.
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
	// A newer bundle may ask for less.
	maps.DeleteFunc(given, func(name, _ string) bool {
		return !slices.ContainsFunc(r.host.Values, func(v bundle.Value) bool { return v.Name == name })
	})
	return given, nil
}

// Size is how many bytes the release takes, archives as they are carried.
func (r *Release) Size() int64 {
	total := int64(0)
	for _, f := range r.files {
		total += max(int64(len(f.data)), f.blob.Size)
	}
	return total
}

// content opens what a file consists of.
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

// Services lists what the release runs: the services of its compose file, or the
// units that it links.
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
