package create

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// journal is OUTPUT.partial.journal, the record of which bytes of OUTPUT.partial are
// durable. It contains one JSON document per line: first a beginning, then claims. The
// last claim about a blob counts. A line is written only after the claimed bytes were
// synced, so a power cut can lose lines but never makes one untrue. The holder of the
// journal's lock may write both files.
type journal struct {
	path    string
	f       *os.File
	release func() error
	begun   *beginning // of the interrupted run, or nil
	claims  map[bundle.Digest]claim
}

// beginning contains the inputs that determine the layout of a bundle, except upstream's
// content. Nothing in it gets signed: any user with write access to the directory can
// write a beginning.
type beginning struct {
	APIVersion string        `json:"apiVersion"` // bundle.APIVersion
	Kind       string        `json:"kind"`       // "CreateJournal"
	Manifest   bundle.Digest `json:"manifest"`
	Program    string        `json:"program"`
	Channel    string        `json:"channel"`
	Platforms  []string      `json:"platforms"`
	VolumeSize int64         `json:"volumeSize"`
	Choice     bundle.Digest `json:"choice"` // digest of all other options that determine the layout
}

// continues reports whether a run that starts with b can use the partial files of a run
// that started with other.
func (b beginning) continues(other beginning) bool {
	return b.Manifest == other.Manifest && b.Program == other.Program && b.Channel == other.Channel &&
		slices.Equal(b.Platforms, other.Platforms) && b.VolumeSize == other.VolumeSize && b.Choice == other.Choice
}

// claim records that the first Have bytes of a blob are at Offset of the bundle.
type claim struct {
	Blob   bundle.Digest `json:"blob"`
	Offset int64         `json:"offset"` // bytes
	Have   int64         `json:"have"`   // bytes
}

// openJournal locks OUTPUT.partial for writing, and reads the claims of an interrupted
// run. Errors wrap ErrLocked, bundle.ErrNewer, disk.ErrNotFile, or are the file system's.
func openJournal(partial string) (*journal, error) {
	j := &journal{path: partial + ".journal", claims: map[bundle.Digest]claim{}}
	f, err := disk.OpenOrCreate(j.path)
	if err != nil {
		return nil, err
	}
	j.f = f
	busy := fmt.Errorf("%w on %s; wait for it, or choose another name with -o", ErrLocked, partial)
	j.release, err = disk.TryLock(j.path)
	if err == nil && j.release == nil {
		err = busy
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// Another run may have finished and removed the opened file before the lock was
	// taken.
	if !isAt(f, j.path) {
		return nil, errors.Join(busy, j.close())
	}
	if err := j.read(); err != nil {
		return nil, errors.Join(err, j.close())
	}
	return j, nil
}

// isAt reports whether path still names the open file f.
func isAt(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(open, named)
}

// read reads the complete and valid lines, and truncates the file after them.
func (j *journal) read() error {
	lines := bufio.NewReader(j.f)
	var good int64
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) || errors.Is(err, bufio.ErrBufferFull) {
			break
		}
		if err != nil {
			return err
		}
		ok, err := j.take(line)
		if err != nil {
			return fmt.Errorf("%w: %s; finish with that program, or remove it", err, j.path)
		}
		if !ok {
			break
		}
		good += int64(len(line))
	}
	if err := j.f.Truncate(good); err != nil {
		return err
	}
	_, err := j.f.Seek(good, io.SeekStart)
	return err
}

// take adds a line to j, and reports whether the line is valid. The error wraps
// bundle.ErrNewer: the journal of a newer program must not be truncated.
func (j *journal) take(line []byte) (bool, error) {
	if j.begun == nil {
		var b beginning
		err := bundle.DecodeStrict(line, &b)
		if err == nil && b.APIVersion != bundle.APIVersion {
			err = fmt.Errorf("%w: it is of %q", bundle.ErrNewer, b.APIVersion)
		}
		if errors.Is(err, bundle.ErrNewer) {
			return false, err
		}
		ok := err == nil && b.Kind == "CreateJournal"
		if ok {
			j.begun = &b
		}
		return ok, nil
	}
	var c claim
	ok := bundle.DecodeStrict(line, &c) == nil && c.Have >= 0
	if ok {
		j.claims[c.Blob] = c
	}
	return ok, nil
}

// begin makes j the journal of this run. Claims that do not fit the layout g are dropped
// before any blob is overwritten.
func (j *journal) begin(b beginning, g *bundle.Geometry) error {
	fits := func(c claim) bool {
		m, ok := g.Place(c.Blob)
		return ok && c.Offset == m.Data && c.Have <= m.Size
	}
	same := j.begun != nil && b.continues(*j.begun)
	lost := j.begun != nil && b.VolumeSize != j.begun.VolumeSize
	for d, c := range j.claims {
		if lost || !fits(c) {
			delete(j.claims, d)
			same = false
		}
	}
	if same {
		return nil
	}
	var lines bytes.Buffer
	if err := appendLine(&lines, b); err != nil {
		return err
	}
	for _, c := range j.claims {
		if err := appendLine(&lines, c); err != nil {
			return err
		}
	}
	j.begun = &b
	if err := j.f.Truncate(0); err != nil {
		return err
	}
	if _, err := j.f.WriteAt(lines.Bytes(), 0); err != nil {
		return err
	}
	if _, err := j.f.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	return j.f.Sync()
}

func appendLine(to *bytes.Buffer, v any) error {
	line, err := bundle.Encode(v)
	to.Write(line)
	to.WriteByte('\n')
	return err
}

// add appends claims. The caller must have synced the claimed bytes.
func (j *journal) add(claims []claim) error {
	if len(claims) == 0 {
		return nil
	}
	var lines bytes.Buffer
	for _, c := range claims {
		if err := appendLine(&lines, c); err != nil {
			return err
		}
	}
	if _, err := j.f.Write(lines.Bytes()); err != nil {
		return err
	}
	if err := j.f.Sync(); err != nil {
		return err
	}
	for _, c := range claims {
		j.claims[c.Blob] = c
	}
	return nil
}

// forget drops all claims, because the partial files are gone.
func (j *journal) forget() {
	j.begun, j.claims = nil, map[bundle.Digest]claim{}
}

// close releases the lock and leaves the journal for the next run.
func (j *journal) close() error { return errors.Join(j.f.Close(), j.release()) }

// remove removes the journal and releases the lock.
func (j *journal) remove() error { return errors.Join(os.Remove(j.path), j.close()) }
