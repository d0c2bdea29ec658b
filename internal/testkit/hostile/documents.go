package hostile

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Documents returns variants of a document of the format that two parsers read differently, or
// that one of them refuses. Good is a JSON object. Number is a field of it with an integer
// that occurs once, such as "schemaVersion":2, or "" for none. All variants must be refused
// with bundle.ErrFormat.
func Documents(tb testing.TB, good []byte, number string) []Hostile {
	tb.Helper()
	good = bytes.TrimSpace(good)
	body := string(good[1:]) // after the brace
	first, text := firstField(tb, good)
	key, _, _ := strings.Cut(first, ":")
	folded := strings.ToUpper(key[:2]) + key[2:]
	if folded == key {
		folded = strings.ToLower(key[:2]) + key[2:]
	}
	var rows []Hostile
	add := func(name, data string) {
		if data == string(good) {
			tb.Fatalf("%s changes nothing in %s", name, good)
		}
		rows = append(rows, Hostile{Name: name, Data: []byte(data), Want: bundle.ErrFormat})
	}
	instead := func(value string) string { return "{" + key + ":" + value + body[len(first):] }
	inText := func(s string) string { // inserts s into the first string value of the document
		i := strings.Index(string(good), text)
		return string(good[:i+1]) + s + string(good[i+1:])
	}
	add("a doubled key", "{"+first+","+body)
	add("a key in another case", "{"+folded+body[len(key):])
	add("a key, and again in another case", "{"+folded+":"+strings.TrimPrefix(first, key+":")+","+body)
	add(
		"a key spelled with an escape, and again",
		`{"\u00`+fmt.Sprintf("%02x", key[1])+key[2:]+":"+strings.TrimPrefix(first, key+":")+","+body,
	)
	add("a key with a letter that folds to another", `{"`+strings.Replace(key[1:], "s", "\u017f", 1)+`x":1,`+body)
	add("an unknown field", `{"unknown":{"a":[1]},`+body)
	add("an empty key", `{"":"",`+body)
	add("null for a value", instead("null"))
	add("null for the document", "null")
	add("a list for the document", "["+string(good)+"]")
	add("an empty list", "[]")
	add("a text for the document", `"x"`)
	add("a number for the document", "1")
	add("a list for a value", instead("[]"))
	add("an object for a value", instead(`{"x":{}}`))
	add("a truth for a value", instead("true"))
	add("nothing", "")
	add("spaces", "   \n")
	add("a second document", string(good)+string(good))
	add("an empty document behind it", string(good)+" {}")
	add("a brace behind it", string(good)+"}")
	add("a comma behind it", string(good)+",")
	add("NUL behind it", string(good)+"\x00")
	add("text behind it", string(good)+"\nx")
	add("cut", string(good[:len(good)-1]))
	add("a byte order mark", "\ufeff"+string(good))
	add("UTF-16", utf16(good))
	add("a byte that is no UTF-8", inText("\xff"))
	add("an overlong slash", inText("\xc0\xaf"))
	add("a surrogate in UTF-8", inText("\xed\xa0\x80"))
	add("a lone surrogate", inText(`\ud800`))
	add("surrogates exchanged", inText(`\udc00\ud800`))
	add("NUL in a text", inText("\x00"))
	add("an escaped NUL in a text", inText(`\u0000`))
	add("a line break in a text", inText("\n"))
	add("an unknown escape", inText(`\x41`))
	add("a tab in a text", inText("\t"))
	add("single quotes", strings.Replace(string(good), key, "'"+strings.Trim(key, `"`)+"'", 1))
	add("a key without quotes", strings.Replace(string(good), key, strings.Trim(key, `"`), 1))
	add("a comment", "{/* x */"+body)
	add("a comma too many", string(good[:len(good)-1])+",}")
	add("a vertical tab between", "{\v"+body)
	add("a no-break space between", "{\u00a0"+body)
	add("10^5 lists in each other", instead(strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)))
	add("10^5 objects in each other", instead(strings.Repeat(`{"a":`, 100_000)+"1"+strings.Repeat("}", 100_000)))
	add("10^5 lists that do not end", "{"+key+":"+strings.Repeat("[", 100_000))
	if number == "" {
		return rows
	}
	name, value, _ := strings.Cut(number, `":`)
	if strings.Count(string(good), number) != 1 {
		tb.Fatalf("%s is not once in %s", number, good)
	}
	for _, n := range []string{
		value + "e0", value + "E+0", value + ".0", value + "e3", "1e400", "-" + value, "-0", "0" + value,
		"+" + value, "0x" + value, "." + value, value + ".", value + "_0", `"` + value + `"`,
		"9223372036854775808", "-9223372036854775809", "18446744073709551616", "NaN", "Infinity", "9007199254740993.5", "true", "[]",
		strings.Repeat("1", 1<<20), "1" + strings.Repeat("0", 1<<20) + "e-1048576", value + "." + strings.Repeat("0", 1<<20),
	} {
		label := n
		if len(n) > 40 {
			label = fmt.Sprintf("%s... of %d digits", n[:8], len(n))
		}
		add("the number "+label, strings.Replace(string(good), number, name+`":`+n, 1))
	}
	return rows
}

// firstField returns the first field of an object and its first string value, both as written
// in the document.
func firstField(tb testing.TB, doc []byte) (field, text string) {
	tb.Helper()
	d := jsontext.NewDecoder(bytes.NewReader(doc))
	if _, err := d.ReadToken(); err != nil {
		tb.Fatal(err)
	}
	k, err := d.ReadValue()
	if err != nil {
		tb.Fatal(err)
	}
	k = slices.Clone(k)
	v, err := d.ReadValue()
	if err != nil {
		tb.Fatal(err)
	}
	field = string(k) + ":" + string(v)
	d = jsontext.NewDecoder(bytes.NewReader(doc))
	for {
		tok, err := d.ReadToken()
		if err != nil {
			tb.Fatalf("no text in %s", doc)
		}
		if kind, n := d.StackIndex(d.StackDepth()); tok.Kind() == '"' && (kind == '[' || n%2 == 0) {
			return field, fmt.Sprintf("%q", tok.String())
		}
	}
}

func utf16(data []byte) string {
	var b strings.Builder
	b.WriteString("\xff\xfe")
	for _, c := range data {
		b.Write([]byte{c, 0})
	}
	return b.String()
}
