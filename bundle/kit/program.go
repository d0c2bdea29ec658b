// Package kit places beside a bundle the files for a machine without oob-bundle: the
// program that installs the bundle, its checksum and signature, and a page to read
// first. These files are not trusted because they come on the same medium; the page
// lists which values to compare with values received by another way.
package kit

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// ErrProgram reports that a file is not oob-bundle for the requested platform.
var ErrProgram = errors.New("not a program for this bundle")

// mainPackage is the main package in the build information of oob-bundle.
const mainPackage = "github.com/oob-bundle/oob-bundle/cmd/oob-bundle"

// Program is the oob-bundle to place beside a bundle. The caller of Open must close it.
type Program struct {
	*os.File
	Platform bundle.Platform
	Version  string // module version, or "devel"
	Size     int64  // bytes
}

// Open opens a program. Open requires that the program is oob-bundle for the platform,
// and static. Errors wrap ErrProgram, or are the file system's.
func Open(path string, platform bundle.Platform) (p *Program, err error) {
	if platform.OS != "linux" {
		return nil, fmt.Errorf(
			"%w: the bundle is for %s, and only a Linux program can go with it; leave away --with-installer",
			ErrProgram, platform,
		)
	}
	f, err := disk.OpenRegular(path)
	if errors.Is(err, disk.ErrNotFile) {
		err = fmt.Errorf("%w: %s is not a file", ErrProgram, path)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	version, err := check(f, platform)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %w; give the release for %s with --with-installer=PATH", ErrProgram, path, err, platform)
	}
	return &Program{f, platform, version, fi.Size()}, nil
}

// Name returns the file name of the program beside a bundle.
func (p *Program) Name() string {
	return "oob-bundle_" + strings.ReplaceAll(p.Platform.String(), "/", "-")
}

// isOurs reports whether the file is oob-bundle, for any platform and of any version.
func isOurs(r io.ReaderAt) bool {
	f, err := elf.NewFile(r)
	if err != nil {
		return false
	}
	info, err := buildInfo(f)
	return err == nil && info.Path == mainPackage
}

// maxBuildInfo is the maximum size of the build information that is read, in bytes.
const maxBuildInfo = 1 << 20

// buildInfo reads the build information that Go 1.18 and newer write into a program
// (format: comment of debug/buildinfo, and cmd/link, data.go). The package
// debug/buildinfo itself would add the program formats of all other systems, and 2 MB
// of memory in every run.
func buildInfo(f *elf.File) (*debug.BuildInfo, error) {
	missing := errors.New("is not a Go program, or was stripped of what says which one it is")
	s := f.Section(".go.buildinfo")
	if s == nil || s.Size > maxBuildInfo {
		return nil, missing
	}
	data, err := s.Data()
	const header = 32 // "\xff Go buildinf:", the size of a pointer, flags, padding
	if err != nil || len(data) < header || string(data[:14]) != "\xff Go buildinf:" || data[15]&2 == 0 {
		return nil, missing
	}
	rest := data[header:]
	var text string
	for range 2 { // the version of Go, then the modules
		n, k := binary.Uvarint(rest)
		if k <= 0 || n > uint64(len(rest)-k) {
			return nil, missing
		}
		text, rest = string(rest[k:k+int(n)]), rest[k+int(n):]
	}
	const mark = 16 // length of the marker before and after the text
	if len(text) < 2*mark {
		return nil, missing
	}
	info, err := debug.ParseBuildInfo(text[mark : len(text)-mark])
	if err != nil {
		return nil, missing
	}
	return info, nil
}

// machines returns the ELF processor types by GOARCH.
func machines() map[string]elf.Machine {
	return map[string]elf.Machine{
		"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "386": elf.EM_386, "arm": elf.EM_ARM, "loong64": elf.EM_LOONGARCH,
		"ppc64le": elf.EM_PPC64, "riscv64": elf.EM_RISCV, "s390x": elf.EM_S390,
	}
}

// check checks a program and returns its version. The error text continues a sentence
// that starts with the program's path.
func check(r io.ReaderAt, want bundle.Platform) (version string, err error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return "", errors.New("is not a Linux program (ELF)")
	}
	info, err := buildInfo(f)
	if err != nil {
		return "", err
	}
	if info.Path != mainPackage {
		return "", fmt.Errorf("is %s, not oob-bundle", info.Path)
	}
	built := map[string]string{}
	for _, s := range info.Settings {
		built[s.Key] = s.Value
	}
	if built["GOOS"] != want.OS || built["GOARCH"] != want.Architecture {
		return "", fmt.Errorf("was built for %s/%s, and the bundle is for %s", built["GOOS"], built["GOARCH"], want)
	}
	if arm := strings.TrimPrefix(want.Variant, "v"); want.Architecture == "arm" && built["GOARM"] > arm {
		return "", fmt.Errorf("was built for arm/v%s, and the bundle is for %s", built["GOARM"], want)
	}
	if m := machines()[want.Architecture]; f.Machine != m || m == elf.EM_NONE {
		return "", fmt.Errorf(
			"is for the processor %s and says that it was built for %s: it is damaged, or was changed",
			f.Machine, built["GOARCH"],
		)
	}
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return "", errors.New("needs libraries of the machine that it was built on; one that is built with CGO_ENABLED=0 does not")
	}
	version = info.Main.Version
	if version == "" || version == "(devel)" {
		version = "devel"
	}
	return version, nil
}
