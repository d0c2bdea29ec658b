package bundle

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// Additions to file names by browsers, file managers and discs.
var (
	discVersion = regexp.MustCompile(`;[0-9]{1,5}$`) // ISO 9660, 7.5.1
	addedType   = regexp.MustCompile(`(?i)(\.[0-9]{3}|\.tar)\.(txt|bin|dat|tmp|part|download|crdownload|file)$`)
	copyMark    = regexp.MustCompile(`(?i)( - copy| copy)?[ _]?\(([0-9]+|copy( [0-9]+)?|another copy)\)|( - copy| copy)( [0-9]+)?`)
)

// originalName returns a file name without such additions.
func originalName(name string) string {
	name = discVersion.ReplaceAllString(name, "")
	name = addedType.ReplaceAllString(name, "$1")
	return strings.TrimSuffix(copyMark.ReplaceAllString(name, ""), ".")
}

// maxMoves bounds the files that a message names.
const maxMoves = 20

// moves returns the shell commands that give parts of the bundle at base their proper names,
// or "". It looks for files with a similar name in the same directory.
func moves(base string) string {
	dir, name := filepath.Split(base)
	entries, err := os.ReadDir(filepath.Clean(dir + "."))
	if err != nil {
		return ""
	}
	var commands []string
	taken := map[string]bool{}
	for _, e := range entries {
		original := originalName(e.Name())
		if _, ok := volumeNumber(original); !ok || !e.Type().IsRegular() {
			continue
		}
		stem, number := original[:len(original)-len(".001")], original[len(original)-len(".001"):]
		target := name + number
		if !strings.EqualFold(stem, originalName(name)) || e.Name() == target || taken[target] {
			continue
		}
		if _, err := os.Lstat(dir + target); err == nil || len(commands) == maxMoves {
			continue
		}
		taken[target] = true
		commands = append(commands, moveCommand(dir+e.Name(), dir+target))
	}
	return strings.Join(commands, " && ")
}

func moveCommand(from, to string) string {
	return fmt.Sprintf("mv %s %s", disk.ShellWord(from), disk.ShellWord(to))
}

// similarFile returns the command that renames the first file with a similar name to path, or
// "".
func similarFile(path string) string {
	dir, name := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir + "."))
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if e.Type().IsRegular() && e.Name() != name && strings.EqualFold(originalName(e.Name()), originalName(name)) {
			return moveCommand(dir+e.Name(), path)
		}
	}
	return ""
}

// renamed returns an error if the missing bundle at path, or its parts, exist under similar
// names; otherwise nil. The error names the files.
func renamed(path string) error {
	base := strings.TrimSuffix(path, ".001")
	command := moves(base)
	if command == "" {
		command = similarFile(path)
	}
	if command == "" {
		return nil
	}
	return fmt.Errorf("%w: %s does not exist, and a file with a similar name does; run %s", ErrPart, path, command)
}

// renamedPart returns how to rename the file at path and the parts beside it, if its name is
// the name of a part with an addition. N is the number of the part.
func renamedPart(path string) (n int, command string) {
	dir, name := filepath.Split(path)
	original := originalName(name)
	n, ok := volumeNumber(original)
	if !ok || original == name {
		return 0, ""
	}
	return n, moves(dir + original[:len(original)-len(".001")])
}

// misnamed returns how to rename a first part that was taken for a whole bundle because its
// name was changed.
func (f *File) misnamed(want int64) string {
	path := f.parts[0].Name()
	_, command := renamedPart(path)
	if command == "" || want <= f.size {
		return ""
	}
	return fmt.Sprintf("%s is a part under another name; run %s", path, command)
}
