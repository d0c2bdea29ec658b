package bundle_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// TestRenamedParts: the error names parts that a browser, a file manager or a disc renamed,
// and the commands that restore their names.
func TestRenamedParts(t *testing.T) {
	key := world.NewKey(t)
	good := world.Small(t, key)
	const part = 3 * 512
	for name, x := range map[string]struct {
		files map[string]int // name → number of the part
		open  string
		want  string // the end of the message, with DIR for the directory
	}{
		"a disc's version": {
			map[string]int{"x.oob.tar.001": 1, "x.oob.tar.002;1": 2}, "x.oob.tar.001", "mv 'DIR/x.oob.tar.002;1' DIR/x.oob.tar.002",
		},
		"a disc's version, opened": {
			map[string]int{"x.oob.tar.001;1": 1, "x.oob.tar.002;1": 2}, "x.oob.tar.001;1",
			"mv 'DIR/x.oob.tar.001;1' DIR/x.oob.tar.001 && mv 'DIR/x.oob.tar.002;1' DIR/x.oob.tar.002",
		},
		"a disc's version, missing": {map[string]int{"X.OOB.TAR.001;1": 1}, "x.oob.tar.001", "mv 'DIR/X.OOB.TAR.001;1' DIR/x.oob.tar.001"},
		"the second, opened": {
			map[string]int{"x.oob.tar.001": 1, "x.oob.tar.002;1": 2}, "x.oob.tar.002;1", "mv 'DIR/x.oob.tar.002;1' DIR/x.oob.tar.002",
		},
		"upper case": {
			map[string]int{"x.oob.tar.001": 1, "X.OOB.TAR.002": 2}, "x.oob.tar.001", "mv DIR/X.OOB.TAR.002 DIR/x.oob.tar.002",
		},
		"a second download": {
			map[string]int{"x.oob.tar.001": 1, "x.oob.tar (1).002": 2}, "x.oob.tar.001", "mv 'DIR/x.oob.tar (1).002' DIR/x.oob.tar.002",
		},
		"a number at the end": {
			map[string]int{"x.oob.tar.001": 1, "x.oob.tar.002 (1)": 2}, "x.oob.tar.001", "mv 'DIR/x.oob.tar.002 (1)' DIR/x.oob.tar.002",
		},
		"only the first renamed": {
			map[string]int{"x (1).oob.tar.001": 1, "x.oob.tar.002": 2}, "x (1).oob.tar.001", "mv DIR/x.oob.tar.002 'DIR/x (1).oob.tar.002'",
		},
		"a copy": {
			map[string]int{"x.oob.tar.001": 1, "x.oob.tar - Copy.002": 2}, "x.oob.tar.001", "mv 'DIR/x.oob.tar - Copy.002' DIR/x.oob.tar.002",
		},
		"a type": {
			map[string]int{"x.oob.tar.001": 1, "x.oob.tar.002.txt": 2}, "x.oob.tar.001", "mv DIR/x.oob.tar.002.txt DIR/x.oob.tar.002",
		},
		"a type, opened": {
			map[string]int{"x.oob.tar.001.txt": 1, "x.oob.tar.002.txt": 2}, "x.oob.tar.001.txt",
			"mv DIR/x.oob.tar.001.txt DIR/x.oob.tar.001 && mv DIR/x.oob.tar.002.txt DIR/x.oob.tar.002",
		},
		"one in the middle": {
			map[string]int{"x.oob.tar.001": 1, "x.oob.tar.002;1": 2, "x.oob.tar.003": 3},
			"x.oob.tar.001", "mv 'DIR/x.oob.tar.002;1' DIR/x.oob.tar.002",
		},
		"a whole bundle, missing":  {map[string]int{"x (1).oob.tar": 0}, "x.oob.tar", "mv 'DIR/x (1).oob.tar' DIR/x.oob.tar"},
		"parts, a whole asked for": {map[string]int{"x.oob.tar.001;1": 1}, "x.oob.tar", "mv 'DIR/x.oob.tar.001;1' DIR/x.oob.tar.001"},
		"a whole bundle, opened":   {map[string]int{"x.oob.tar (1)": 0}, "x.oob.tar (1)", ""},
		"one part, opened":         {map[string]int{"x.oob.tar.001;1": 0}, "x.oob.tar.001;1", ""},
		"an older part beside":     {map[string]int{"x.oob.tar.001": 0, "x.oob.tar (1).002": 2}, "x.oob.tar.001", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for name, n := range x.files {
				data := good
				if n > 0 {
					data = good[(n-1)*part : n*part]
				}
				world.Write(t, filepath.Join(dir, name), data, 0o644)
			}
			err := readAt(filepath.Join(dir, x.open))
			want := strings.ReplaceAll(x.want, "DIR", dir)
			if (err == nil) != (want == "") || !strings.HasSuffix(fmt.Sprint(err), want) && want != "" {
				t.Errorf("%v", err)
			}
		})
	}
}

func readAt(path string) error {
	f, err := bundle.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	head, err := bundle.ReadHead(f, f.Size())
	if err != nil {
		return err
	}
	_, err = bundle.NewReader(f, f.Size(), head)
	return err
}
