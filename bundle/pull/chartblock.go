package pull

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// blockIndex reads an index in block style, line by line. In block style all lines of
// a node are indented deeper than its parent (YAML 1.2.2, chapter 8), so the document can
// be split at the columns of "entries", of its keys and of a chart's list items. Only the
// versions of the wanted chart are decoded, one at a time.
type blockIndex struct {
	name string
	kept versionList

	begun   bool // a key of the root mapping was read
	inside  bool // the current line is below entries
	entries bool // the key entries was read
	keys    int  // column of the keys below entries; -1 before the first
	wanted  bool // the current line is below the chart's key
	found   bool // the chart's key was read
	list    bool // the chart's value can still be a list on the following lines
	items   int  // column of the items of that list; -1 before the first
	text    bytes.Buffer
}

// blockEntries reads an index in block style.
func blockEntries(r io.Reader, name string) ([]chartVersion, error) {
	lines := bufio.NewReaderSize(r, 64<<10)
	b := &blockIndex{name: name, items: -1}
	for start, done := true, false; ; {
		part, err := lines.ReadSlice('\n') // only a part of a long line
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		atEnd := errors.Is(err, io.EOF)
		if bytes.IndexByte(bytes.TrimSuffix(part, []byte("\r\n")), '\r') >= 0 {
			return nil, errIndexForm // a lone CR is a line break in YAML
		}
		if start {
			done, err = b.line(part)
		} else {
			err = b.keep(part)
		}
		if err != nil {
			return nil, err
		}
		if done || atEnd {
			err := b.flush() // must run before kept.list is read
			return b.kept.list, err
		}
		start = bytes.HasSuffix(part, []byte("\n"))
	}
}

// keep adds a part of a line to the text that flush decodes.
func (b *blockIndex) keep(part []byte) error {
	if !b.wanted {
		return nil
	}
	if b.text.Len()+len(part) > maxWholeIndex {
		return fmt.Errorf("%w: the index has more than %d bytes about one version of %s",
			bundle.ErrLimit, maxWholeIndex, b.name)
	}
	b.text.Write(part)
	return nil
}

// flush decodes the kept text: one item of the chart's list, or the chart's key with a
// value in another form.
func (b *blockIndex) flush() error {
	defer b.text.Reset()
	if !b.wanted || b.text.Len() == 0 {
		return nil
	}
	var versions []chartVersion
	var err error
	if b.items >= 0 {
		err = yaml.Load(b.text.Bytes(), &versions)
	} else {
		var chart map[string][]chartVersion
		err = yaml.Load(b.text.Bytes(), &chart)
		versions = chart[b.name]
	}
	if err != nil {
		return errIndexForm // for example an alias whose anchor is in another part
	}
	return b.kept.add(versions...)
}

// line processes the start of a line. done reports the end of the document.
func (b *blockIndex) line(line []byte) (done bool, err error) {
	indented := bytes.TrimLeft(line, " ")
	column := len(line) - len(indented)
	text := string(bytes.TrimRight(indented, " \t\r\n"))
	switch {
	case text == "":
		return false, b.keep(line)
	case b.inside && (b.keys < 0 || column > b.keys) && column > 0:
		return false, b.below(column, text, line)
	case text[0] == '#':
		return false, nil
	case column == 0:
		return b.root(text)
	case b.inside && column == b.keys:
		return false, b.entry(column, text, line)
	case b.inside || !b.begun:
		return false, errIndexForm
	}
	return false, nil
}

// root processes a line that starts in the first column.
func (b *blockIndex) root(text string) (done bool, err error) {
	if !b.begun && (text == "---" || strings.HasPrefix(text, "%YAML ")) {
		return false, nil
	}
	marker, _, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " ")
	if marker == "---" || marker == "..." {
		if !b.begun {
			return false, errIndexForm
		}
		return true, nil
	}
	key, value, ok := splitKey(strings.TrimPrefix(text, "\ufeff"))
	if !ok {
		return false, errIndexForm
	}
	if err := b.flush(); err != nil {
		return false, err
	}
	b.begun, b.wanted, b.inside = true, false, key == "entries"
	if !b.inside {
		return false, nil
	}
	if value != "" || b.entries {
		return false, errIndexForm
	}
	b.entries, b.keys = true, -1
	return false, nil
}

// entry processes a line that starts in the column of the keys below entries.
func (b *blockIndex) entry(column int, text string, line []byte) error {
	if isItem(text) { // a list may start in the column of its key
		return b.below(column, text, line)
	}
	if err := b.flush(); err != nil {
		return err
	}
	key, value, ok := splitKey(text)
	if !ok {
		return errIndexForm
	}
	if b.wanted = key == b.name; !b.wanted {
		return nil
	}
	if b.found {
		return errIndexForm // duplicate keys
	}
	b.found, b.list, b.items = true, value == "", -1
	return b.keep(line)
}

// below processes a line inside an entry.
func (b *blockIndex) below(column int, text string, line []byte) error {
	if b.keys < 0 {
		if text[0] == '#' {
			return nil
		}
		if isItem(text) {
			return errIndexForm
		}
		b.keys = column
		return b.entry(column, text, line)
	}
	if !b.wanted || b.items < 0 && text[0] == '#' {
		return nil
	}
	if b.list && isItem(text) {
		b.items = column
		b.text.Reset() // drops the line with the key
	} else if b.items == column && isItem(text) {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.list = false
	return b.keep(line)
}

func isItem(text string) bool {
	return text == "-" || strings.HasPrefix(text, "- ") || strings.HasPrefix(text, "-\t")
}

// splitKey splits a line that starts with a key in block style. ok is false for a line
// that only a YAML parser can interpret.
func splitKey(text string) (key, value string, ok bool) {
	if text == "" || strings.ContainsRune("&*!|>%@`?[]{},#-<:\t", rune(text[0])) {
		return "", "", false
	}
	var end int
	if text[0] == '"' || text[0] == '\'' {
		end = closingQuote(text)
		if end < 0 || yaml.Load([]byte(text[:end]), &key) != nil {
			return "", "", false
		}
	} else {
		end = plainEnd(text)
		key = strings.TrimRight(text[:end], " \t")
	}
	value, ok = strings.CutPrefix(strings.TrimLeft(text[end:], " \t"), ":")
	if !ok || value != "" && value[0] != ' ' && value[0] != '\t' {
		return "", "", false
	}
	value = strings.TrimLeft(value, " \t")
	if strings.HasPrefix(value, "#") {
		value = ""
	}
	return key, value, true
}

// plainEnd returns the index of the colon or comment after an unquoted key
// (YAML 1.2.2, section 7.3.3).
func plainEnd(text string) int {
	for i := range len(text) {
		space := i+1 == len(text) || text[i+1] == ' ' || text[i+1] == '\t'
		comment := text[i] == '#' && (text[i-1] == ' ' || text[i-1] == '\t')
		if comment || text[i] == ':' && space {
			return i
		}
	}
	return len(text)
}

// closingQuote returns the index after the quoted text at the start of a line, or -1.
func closingQuote(text string) int {
	quote := text[0]
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote == '"':
			i++
		case text[i] == quote && quote == '\'' && i+1 < len(text) && text[i+1] == quote:
			i++
		case text[i] == quote:
			return i + 1
		}
	}
	return -1
}
