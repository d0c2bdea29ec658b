package create

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/kit"
	"github.com/oob-bundle/oob-bundle/bundle/record"
)

// openBeside checks, before anything is fetched, that the files beside the bundle can be
// written. It returns the program to place there, or nil.
func (j *job) openBeside() (*kit.Program, error) {
	if err := record.Replaceable(record.FileName(j.Output)); err != nil {
		return nil, err
	}
	if j.Installer == "" {
		return nil, nil
	}
	p, err := kit.Open(j.Installer, j.Platforms[0])
	if err != nil {
		return nil, err
	}
	if err := p.CheckPlace(filepath.Dir(j.Output), filepath.Base(j.Output)); err != nil {
		_ = p.Close() // opened for reading only
		return nil, err
	}
	return p, nil
}

// beside writes the files beside a complete bundle before the bundle gets its name, so
// that a bundle with its name has all of them.
type beside struct {
	*job
	out       *output
	program   *kit.Program // nil for none
	signature bundle.Signature
	reuse     []*reusable
}

func (b *beside) write(result *Result) error {
	r, err := bundle.NewReader(b.out.file, b.out.file.Size(), &bundle.Head{Root: result.Geometry.Root})
	if err != nil {
		return err
	}
	s, err := record.Describe(r, []bundle.Signature{b.signature})
	if err != nil {
		return err
	}
	if err := b.compare(s); err != nil {
		return err
	}
	base := filepath.Base(b.Output)
	if s.Host != nil {
		for _, v := range bundle.Needed(s.Host.Values) {
			result.Needs = append(result.Needs, v.Name)
		}
	}
	page := record.Page{Summary: s, File: base, Made: &record.Made{Program: b.Program, Key: b.keyName(), Public: PublicName(b.keyName())}}
	if b.out.each > 0 {
		page.Volumes = record.Volumes(base, b.out.file.Sizes())
	}
	if page.Made.Beside, err = b.kit(result, page); err != nil {
		return err
	}
	html, err := page.HTML()
	if err != nil {
		return err
	}
	result.Record = record.FileName(b.Output)
	return disk.WriteFile(result.Record, html, 0o644)
}

func (b *beside) keyName() string {
	if b.KeyFile == "" {
		return "oob.key"
	}
	return filepath.Base(b.KeyFile)
}

// PublicName returns the name of the public key file that belongs to a private key file.
func PublicName(key string) string { return strings.TrimSuffix(key, ".key") + ".pub" }

// compare adds to s the changes since the first reused bundle. If that bundle cannot be
// described, compare only warns.
func (b *beside) compare(s *record.Summary) error {
	if len(b.reuse) == 0 {
		return nil
	}
	old, err := record.Describe(b.reuse[0].Reader, nil)
	if err != nil {
		b.Warn("%s cannot be compared with: %v; the record does not say what is new", b.reuse[0].file.Parts()[0], err)
		return nil
	}
	return s.Compare(old)
}

// kit places the kit, if there is a program, and returns the list of the files beside
// the bundle.
func (b *beside) kit(result *Result, page record.Page) ([]record.Beside, error) {
	lock, err := os.ReadFile(result.LockFile)
	if err != nil {
		return nil, err
	}
	list := []record.Beside{{
		Name: filepath.Base(result.LockFile), About: "from which the same bundle can be made again; an installation does not need it",
		Size: int64(len(lock)), Digest: bundle.DigestOf(lock),
	}}
	if b.program == nil {
		return list, nil
	}
	about := kit.ReadMe{Bundle: page.Bundle, Name: page.File, Public: page.Made.Public, Record: record.FileName(page.File)}
	for _, v := range page.Volumes {
		about.Volumes = append(about.Volumes, v.Name)
	}
	if page.Host != nil {
		about.Values = page.Host.Values
	}
	about.Startable = page.Deployment == "compose" || page.Deployment == "linux"
	if result.Kit, err = b.program.Place(filepath.Dir(b.Output), b.Signer, about); err != nil {
		return nil, err
	}
	for _, f := range result.Kit {
		list = append(list, record.Beside{Name: filepath.Base(f.Path), About: f.About, Size: f.Size, Digest: f.Digest})
	}
	return list, nil
}
