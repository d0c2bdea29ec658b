package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// MaxVolumes bounds the parts of a bundle: their numbers have three digits.
const MaxVolumes = 999

// File is a bundle on a disk: one file, or volumes NAME.001, NAME.002 and so on. Volumes are
// consecutive ranges of the bundle. All but the last have the same size.
type File struct {
	parts []part
	each  int64 // size of every part but the last, bytes
	size  int64 // of all together, bytes
}

type part struct {
	*os.File
	size int64
}

// Size returns the number of bytes of the bundle, in all parts together.
func (f *File) Size() int64 { return f.size }

// Unchanged returns an error that wraps ErrFormat if the size of a part has changed since it
// was opened. Another process is then still copying the part, or writes to it.
func (f *File) Unchanged() error {
	for _, p := range f.parts {
		fi, err := p.Stat()
		if err != nil {
			return err
		}
		if fi.Size() != p.size {
			return fmt.Errorf(
				"%w: %s had %d bytes when it was opened and has %d now; wait until it is copied",
				ErrFormat, p.Name(), p.size, fi.Size(),
			)
		}
	}
	return nil
}

// Parts returns the paths of the parts, in their order.
func (f *File) Parts() []string {
	var list []string
	for _, p := range f.parts {
		list = append(list, p.Name())
	}
	return list
}

// Sizes returns the size of each part in bytes, in their order.
func (f *File) Sizes() []int64 {
	var list []int64
	for _, p := range f.parts {
		list = append(list, p.size)
	}
	return list
}

// VolumeName returns the path of part n of a bundle, counted from 1.
func VolumeName(path string, n int) string { return fmt.Sprintf("%s.%03d", path, n) }

// OpenFile opens a bundle for reading, or for signing in place. Flag is that of os.OpenFile.
// For volumes, path is the first volume, and the others must be beside it. Each must be a
// regular file: no link that another user can redirect, no pipe, no device. Errors wrap
// disk.ErrNotFile, wrap ErrFormat if the volumes do not form one file, or are the file
// system's.
func OpenFile(path string, flag int) (*File, error) {
	base, volumes := strings.CutSuffix(path, ".001")
	if !volumes {
		if err := refuseLaterVolume(path); err != nil {
			return nil, err
		}
	}
	f := &File{}
	for n := 1; n == 1 || volumes; n++ {
		name := path
		if n > 1 {
			name = VolumeName(base, n)
		}
		p, err := openPart(name, flag)
		if n > 1 && errors.Is(err, fs.ErrNotExist) {
			break
		}
		if errors.Is(err, fs.ErrNotExist) {
			if similar := renamed(path); similar != nil {
				err = similar
			}
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		f.add(p)
	}
	var err error
	if volumes {
		err = f.checkVolumes(base)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// add appends a part. The size of each is the largest of all parts but the last.
func (f *File) add(p part) {
	if n := len(f.parts); n > 0 {
		f.each = max(f.each, f.parts[n-1].size)
	} else {
		f.each = p.size
	}
	f.parts = append(f.parts, p)
	f.size += p.size
}

// refuseLaterVolume refuses NAME.002, and NAME if only its parts exist. The error names the
// path to give instead.
func refuseLaterVolume(path string) error {
	if n, command := renamedPart(path); n > 1 && command != "" {
		return fmt.Errorf("%w: %s is part %d under another name; run %s", ErrPart, path, n, command)
	}
	first := VolumeName(path, 1)
	if _, ok := volumeNumber(path); ok {
		first = VolumeName(path[:len(path)-len(".001")], 1)
	} else if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if _, err := os.Lstat(first); err == nil {
		return fmt.Errorf("%w: %s is not the first; give %s", ErrPart, path, first)
	}
	if n, ok := volumeNumber(path); ok && n > 1 {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf(
				"%w: %s looks like part %d, and %s is not beside it; put all parts into one directory and give that one",
				ErrPart, path, n, first,
			)
		}
	}
	return nil // not a volume
}

// volumeNumber returns the number at the end of a part's name.
func volumeNumber(path string) (int, bool) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 || len(path)-i != len(".001") {
		return 0, false
	}
	n, err := strconv.ParseUint(path[i+1:], 10, 16)
	return int(n), err == nil
}

// checkVolumes compares the sizes of the parts and looks for a missing part.
func (f *File) checkVolumes(base string) error {
	n := len(f.parts)
	if last := f.parts[n-1]; n > 1 && last.size > f.each {
		return fmt.Errorf(
			"%w: part %s has %d bytes and the parts before it have %d: either they were cut short or it is of another bundle; copy them again",
			ErrFormat, last.Name(), last.size, f.each,
		)
	}
	if last := f.parts[n-1]; n > 1 && last.size == 0 {
		return fmt.Errorf(
			"%w: part %s is empty, which no part is; copy it again, or remove it if it is not of this bundle",
			ErrFormat, last.Name(),
		)
	}
	for i, p := range f.parts[:n-1] {
		if p.size != f.each {
			return fmt.Errorf(
				"%w: part %s is short: it has %d of %d bytes; copy it again, or remove %s if that is of another bundle",
				ErrFormat, p.Name(), p.size, f.each, f.parts[i+1].Name(),
			)
		}
	}
	later, err := filepath.Glob(escapeGlob(base) + ".[0-9][0-9][0-9]")
	if err != nil {
		return err
	}
	// Glob shortens paths (./b.002 becomes b.002), so only the base names are compared.
	if len(later) > 0 && filepath.Base(slices.Max(later)) > filepath.Base(f.parts[n-1].Name()) {
		how := "put all parts into one directory"
		if command := moves(base); command != "" {
			how = "run " + command
		}
		return fmt.Errorf("%w: part %s is missing, and %s is there; %s", ErrFormat, VolumeName(base, n+1), slices.Max(later), how)
	}
	return nil
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func openPart(path string, flag int) (part, error) {
	f, err := disk.Open(path, flag)
	if err != nil {
		return part{}, err
	}
	fi, err := f.Stat()
	if err != nil {
		return part{}, errors.Join(err, f.Close())
	}
	return part{f, fi.Size()}, nil
}

// CreateFile creates or reopens a file of the given size, for writing at any offset. If each
// is not 0, it creates volumes of at most that many bytes. Existing content is kept. Errors
// wrap disk.ErrSpace, disk.ErrNotFile, or are the file system's.
func CreateFile(path string, size, each int64) (*File, error) {
	f := &File{}
	for n := 1; n == 1 || f.size < size; n++ {
		name, want := path, size-f.size
		if each > 0 {
			name, want = VolumeName(path, n), min(want, each)
		}
		p, err := createPart(name, want)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		f.add(p)
	}
	return f, nil
}

func createPart(path string, size int64) (part, error) {
	f, err := disk.OpenOrCreate(path)
	if err != nil {
		return part{}, err
	}
	fi, err := f.Stat()
	if err != nil {
		return part{}, errors.Join(err, f.Close())
	}
	if fi.Size() == size && size > 0 {
		return part{f, size}, nil
	}
	if err := disk.Resize(f, size); err != nil {
		return part{}, errors.Join(err, f.Close())
	}
	return part{f, size}, nil
}

// at returns the part that contains the byte at off, and the byte's offset in that part.
func (f *File) at(off int64) (part, int64) {
	if f.each == 0 {
		return f.parts[0], off
	}
	n := min(int(off/f.each), len(f.parts)-1)
	return f.parts[n], off - int64(n)*f.each
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	return f.stretches(p, off, func(in part, p []byte, off int64) (int, error) { return in.ReadAt(p, off) })
}

// WriteAt implements io.WriterAt. It does not write beyond the size.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	return f.stretches(p, off, func(in part, p []byte, off int64) (int, error) { return in.WriteAt(p, off) })
}

// stretches splits p at the boundaries of the parts and calls do for each piece.
func (f *File) stretches(p []byte, off int64, do func(part, []byte, int64) (int, error)) (int, error) {
	total := 0
	for len(p) > 0 {
		if off >= f.size {
			return total, io.EOF
		}
		in, at := f.at(off)
		n, err := do(in, p[:min(int64(len(p)), in.size-at)], at)
		total, off, p = total+n, off+int64(n), p[n:]
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Sync makes the content of all parts durable.
func (f *File) Sync() error {
	var problems []error
	for _, p := range f.parts {
		problems = append(problems, p.Sync())
	}
	return errors.Join(problems...)
}

// Close closes all parts.
func (f *File) Close() error {
	var problems []error
	for _, p := range f.parts {
		problems = append(problems, p.Close())
	}
	return errors.Join(problems...)
}

// where names the parts that contain a range of bytes, for messages. It returns "" if the
// bundle is one file.
func (f *File) where(off, n int64) string {
	if len(f.parts) < 2 || off >= f.size {
		return ""
	}
	first, _ := f.at(off)
	last, _ := f.at(min(off+max(n, 1), f.size) - 1)
	if first == last {
		return ", in part " + first.Name()
	}
	return fmt.Sprintf(", in parts %s to %s", first.Name(), last.Name())
}

// misfit describes what is wrong with the parts if they should have want bytes together, or at
// least that many, and do not. For one file it returns "", unless the file is a renamed part.
func (f *File) misfit(want int64) string {
	base, ok := strings.CutSuffix(f.parts[0].Name(), ".001")
	if !ok {
		return f.misnamed(want)
	}
	if f.each == 0 {
		return ""
	}
	if command := moves(base); command != "" && want > f.size {
		return fmt.Sprintf("part %s is missing under that name; run %s", VolumeName(base, len(f.parts)+1), command)
	}
	n := len(f.parts)
	last := f.parts[n-1]
	need := int((want + f.each - 1) / f.each)
	switch rest := want - int64(n-1)*f.each; {
	case need > n && n == 1:
		return fmt.Sprintf("part %s is missing, or %s was cut short", VolumeName(base, 2), last.Name())
	case need > n:
		return fmt.Sprintf("part %s is missing (of %d or more)", VolumeName(base, n+1), need)
	case need < n:
		return fmt.Sprintf("part %s does not belong to this bundle", VolumeName(base, need+1))
	case last.size < rest:
		return fmt.Sprintf("part %s is short: it has %d of %d bytes", last.Name(), last.size, rest)
	default:
		return fmt.Sprintf("part %s has %d bytes, %d too many", last.Name(), last.size, last.size-rest)
	}
}
