// Package hostile provides files that no reader may accept as a bundle: damaged archives,
// documents that two parsers read differently, and signed bundles that must not be installed.
package hostile

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// Hostile is a file that must be refused.
type Hostile struct {
	Name string
	Data []byte
	Want error  // class of the refusal
	Text string // part of the message
}

// tarFile is a bundle split into its members.
type tarFile struct {
	members [][]byte // header, content and padding of each
	end     []byte
}

func (f tarFile) join(members ...[]byte) []byte {
	return slices.Concat(bytes.Join(members, nil), f.end)
}

// header returns the bundle with a changed header of one member. It corrects the checksum.
func (f tarFile) header(i int, change func(h []byte)) []byte {
	list := slices.Clone(f.members)
	list[i] = bytes.Clone(list[i])
	change(list[i][:512])
	sum(list[i][:512])
	return f.join(list...)
}

// before returns the bundle with entries inserted before a member.
func (f tarFile) before(i int, what ...[]byte) []byte {
	return f.join(slices.Concat(f.members[:i], what, f.members[i:])...)
}

// sum writes the header checksum (POSIX.1-1988): the sum of all bytes, with the checksum field
// counted as spaces.
func sum(h []byte) {
	copy(h[148:156], "        ")
	n := 0
	for _, b := range h {
		n += int(b)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", n))
}

func field(h []byte, at, length int, value string) {
	clear(h[at : at+length])
	copy(h[at:at+length], value)
}

// entry returns a tar entry. It does not use archive/tar, which would refuse most of these
// entries.
func entry(kind byte, name, link string, content []byte, change ...func(h []byte)) []byte {
	h := world.Header("x", int64(len(content)))
	field(h, 0, 100, name)
	field(h, 157, 100, link)
	h[156] = kind
	for _, c := range change {
		c(h)
	}
	sum(h)
	return slices.Concat(h, content, make([]byte, -len(content)&511))
}

// pax returns an extended header. Its records need not be well formed.
func pax(kind byte, records ...string) []byte {
	var text strings.Builder
	for _, r := range records {
		n := len(r) + 2
		for len(fmt.Sprint(n))+len(r)+2 != n {
			n = len(fmt.Sprint(n)) + len(r) + 2
		}
		fmt.Fprintf(&text, "%d %s\n", n, r)
	}
	return entry(kind, "PaxHeaders.0/x", "", []byte(text.String()))
}

// HostileTars returns variants of a good bundle that can be made without the key: a row for
// each way in which a tar, or a file of another type, can mislead a reader.
func HostileTars(tb testing.TB, good []byte) []Hostile {
	tb.Helper()
	f := takeApart(tb, good)
	n := len(f.members)
	index, slot, blob, last := 1, 2, 3, n-1
	var rows []Hostile
	add := func(name, text string, data []byte) {
		if bytes.Equal(data, good) {
			tb.Fatalf("%s changes nothing", name)
		}
		rows = append(rows, Hostile{name, data, bundle.ErrFormat, text})
	}
	limit := func(name, text string, data []byte) {
		add(name, text, data)
		rows[len(rows)-1].Want = bundle.ErrLimit
	}

	// Not a tar at all.
	add("empty file", "empty", nil)
	add("one byte", "", []byte("o"))
	add("text", "something else", []byte("hello\n"))
	add("a captive portal's page", "web page", []byte("\n\n<!DOCTYPE html><html><title>Sign in</title></html>"))
	add("a page with a byte order mark", "web page", []byte("\ufeff<HTML><body>504"))
	add("zip", "zip", zipOf(good))
	add("gzip of a bundle (.tar.gz)", "gunzip", gzipOf(good))
	add("zstd of a bundle", "zstd", zstdOf(good))
	add("zeros", "something else", make([]byte, 10240))
	add("an OCI layout packed by tar", "something else", slices.Concat(entry('5', "blobs/", "", nil), good))

	// Truncated and extended files.
	add("cut in a header", "incomplete", good[:1024+200])
	add("cut at a block boundary", "incomplete", good[:len(good)-len(f.members[last])-1024])
	add("the end is missing", "incomplete", good[:len(good)-1024])
	add("half of the end", "incomplete", good[:len(good)-512])
	add("garbage behind the end", "bytes follow", append(bytes.Clone(good), "garbage"...))
	add("zeros up to a record of 10 KiB, as GNU tar pads", "bytes follow", append(bytes.Clone(good), make([]byte, 10240-len(good)%10240)...))
	add("a second bundle behind it", "bytes follow", slices.Concat(good, good))
	add("another member behind the end", "bytes follow", slices.Concat(good, entry('0', "etc/passwd", "", []byte("root::0:0"))))
	add("a member instead of the end", "", slices.Concat(good[:len(good)-1024], entry('0', "x", "", nil), make([]byte, 512)))

	// Sizes.
	add("checksum wrong", "header of blobs", flipped(good, f, blob, 148))
	add("a bit of the header", "header of blobs", flipped(good, f, blob, 100))
	for _, at := range []struct {
		name string
		i    int
	}{{"the root", index}, {"the slot", slot}, {"a blob", blob}, {"the load list", last}} {
		size := func(value string) []byte {
			return f.header(at.i, func(h []byte) { field(h, 124, 12, value) })
		}
		base256 := func(v int64) []byte {
			return f.header(at.i, func(h []byte) {
				for i := range 4 {
					h[124+i] = byte(v >> 63)
				}
				h[124] |= 0x80
				binary.BigEndian.PutUint64(h[128:], uint64(v))
			})
		}
		add("base-256 size -1 of "+at.name, "", base256(-1))
		add("base-256 size MaxInt64 of "+at.name, "", base256(1<<63-1))
		add("base-256 spelling of a size of "+at.name, "", base256(int64(512)))
		add("octal size with a minus of "+at.name, "", size("-0000000010"))
		add("octal size with a plus of "+at.name, "", size("+0000001000"))
		add("octal size with spaces of "+at.name, "", size("       1000 "))
		add("octal size with underscores of "+at.name, "", size("0_00_1000_0"))
		add("no size of "+at.name, "", size(""))
		add("size 0 of "+at.name, "", size("00000000000"))
		if row := size("77777777777"); at.i == index {
			limit("8 GiB claimed for "+at.name, "at most", row)
		} else {
			add("8 GiB claimed for "+at.name, "", row)
		}
	}
	limit(
		"a root of one byte more than is allowed",
		"at most",
		f.header(index, func(h []byte) { field(h, 124, 12, fmt.Sprintf("%011o", bundle.MaxManifest+1)) }),
	)
	add(
		"a root of all that is allowed, and nothing there",
		"incomplete",
		f.header(index, func(h []byte) { field(h, 124, 12, fmt.Sprintf("%011o", bundle.MaxManifest)) }),
	)

	// Extended headers, before the first member, the root, a blob and the load list.
	mega := strings.Repeat("n", 1<<20)
	for _, x := range []struct {
		name string
		data []byte
	}{
		{"PAX with NUL in a path", pax('x', "path=a\x00b")},
		{"PAX with a newline in a path", pax('x', "path=a\npath2=z")},
		{"PAX record of more than 1 MiB", pax('x', "comment="+mega+mega)},
		{"PAX name of 1 MiB", pax('x', "path="+mega)},
		{"GNU name of 1 MiB", entry('L', "././@LongLink", "", []byte(mega+"\x00"))},
		{"PAX global header", pax('g', "comment=x")},
		{"GNU long name", entry('L', "././@LongLink", "", []byte("index.json\x00"))},
		{"GNU long link", entry('K', "././@LongLink", "", []byte("/etc/passwd\x00"))},
		{"two extended headers in a row", slices.Concat(pax('x', "path=a"), pax('x', "path=index.json"))},
		{"an extended attribute", pax('x', "SCHILY.xattr.user.x=1")},
		{
			"a file capability",
			pax('x', "SCHILY.xattr.security.capability=\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		},
		{"an access list", pax('x', "SCHILY.acl.access=user::rwx")},
		{"a size that needs no record", pax('x', "size=512")},
		{"an extended header of nothing", pax('x')},
		{"a record without a length", entry('x', "PaxHeaders.0/x", "", []byte("path=a\n"))},
		{"a record with a length of 2^63", entry('x', "PaxHeaders.0/x", "", []byte("9223372036854775808 path=a\n"))},
		{"a GNU multi-volume header", entry('M', "index.json", "", nil)},
		{"a GNU volume label", entry('V', "label", "", nil)},
		{"Solaris' extended header", entry('X', "x", "", []byte("11 path=ab\n"))},
		{"a Unicode twin (NFD) of a name", entry('0', "oci-layou\u0301t", "", nil)},
		{"a sparse file of 1 TiB (GNU)", gnuSparse()},
		{
			"a sparse file of 1 TiB (PAX 1.0)",
			slices.Concat(
				pax('x', "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=x", "GNU.sparse.realsize=1099511627776"),
				entry('0', "x", "", []byte("0\n")),
			),
		},
		{"an empty block", make([]byte, 512)},
		{"the end", make([]byte, 1024)},
	} {
		for _, at := range []int{0, index, blob, last} {
			add(fmt.Sprintf("%s, before member %d", x.name, at), "", f.before(at, x.data))
		}
	}

	// Names of members.
	name := "blobs/sha256/" + strings.Repeat("a", 64)
	for _, bad := range []string{
		"/etc/passwd", "../x", "a/../../x", "./index.json", "index.json/", "blobs//sha256/x", `blobs\sha256\x`, `C:\x`, "C:x", "", ".", "..", "/",
		"oci-layout", "INDEX.JSON", "index.json\x00", "\x1b[2Jx", "x\u202egnp.exe", "x\ny", "x\r",
		"caf\u00e9", "cafe\u0301", "\xff\xfe", "CON", "x ", "x.", strings.Repeat("d/", 49) + "x",
		strings.Repeat("a", 100), "manifest.json", name,
	} {
		add(fmt.Sprintf("a further member %.40q", bad), "", f.before(last, entry('0', bad, "", []byte("x"))))
		add(fmt.Sprintf("a blob is called %.40q", bad), "header of blobs", f.header(blob, func(h []byte) { field(h, 0, 100, bad) }))
	}
	add("a directory 3,000 deep", "", f.before(last, pax('x', "path="+strings.Repeat("d/", 3000)), entry('5', "d", "", nil)))
	add("a name in two halves (prefix)", "header of blobs", f.header(blob, func(h []byte) {
		field(h, 0, 100, string(bytes.TrimRight(h[13:100], "\x00")))
		field(h, 345, 155, "blobs/sha256")
	}))
	add("a second name behind the NUL", "header of blobs", f.header(blob, func(h []byte) { copy(h[90:], "evil") }))

	// Entry types, before the blobs and in place of one.
	for _, k := range []struct {
		name string
		kind byte
		link string
	}{
		{"a symbolic link to outside", '2', "/etc/passwd"}, {"a symbolic link to a parent", '2', ".."},
		{"a hard link to outside", '1', "/etc/passwd"}, {"a hard link to itself", '1', "index.json"},
		{"a hard link forward", '1', "manifest.json"}, {"a character device", '3', ""},
		{"a block device", '4', ""}, {"a directory", '5', ""}, {"a pipe", '6', ""}, {"a contiguous file", '7', ""},
		{"a socket", 's', ""}, {"an unknown type", 'Z', ""}, {"the old type of a file", 0, ""},
		{"a GNU directory", 'D', ""}, {"a sparse file", 'S', ""},
	} {
		add(k.name+", further", "", f.before(blob, entry(k.kind, "x", k.link, nil)))
		add(k.name+", in the place of a blob", "header of blobs", f.header(blob, func(h []byte) { h[156] = k.kind; field(h, 157, 100, k.link) }))
	}
	add("oci-layout is a directory", "first member", f.join(slices.Concat([][]byte{entry('5', "oci-layout/", "", nil)}, f.members[1:])...))
	add(
		"a symbolic link, and a blob written through it",
		"",
		f.before(blob, entry('2', "blobs", "/", nil), entry('0', "blobs/etc/cron.d/x", "", []byte("* * * * * root x\n"))),
	)

	// Other header fields.
	for _, x := range []struct {
		name       string
		at, length int
		value      string
	}{
		{"setuid", 100, 8, "0004755\x00"}, {"setgid", 100, 8, "0002755\x00"}, {"sticky", 100, 8, "0001777\x00"},
		{"world-writable", 100, 8, "0000666\x00"}, {"executable", 100, 8, "0000755\x00"},
		{"mode with spaces", 100, 8, "   644 \x00"}, {"another user", 108, 8, "0001750\x00"},
		{"another group", 116, 8, "0001750\x00"}, {"a user's name", 265, 32, "root"}, {"a group's name", 297, 32, "wheel"},
		{"a time", 136, 12, "00000000001\x00"}, {"a time before 1970", 136, 12, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"},
		{"time 2^63", 136, 12, "\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00"},
		{"a device number", 329, 8, "0000001\x00"}, {"GNU's magic", 257, 8, "ustar  \x00"},
		{"no magic (V7)", 257, 8, ""}, {"another version", 263, 2, "01"}, {"something behind the header", 500, 12, "x"},
	} {
		for _, at := range []int{0, index, slot, blob, last} {
			add(fmt.Sprintf("%s, in member %d", x.name, at), "", f.header(at, func(h []byte) { field(h, x.at, x.length, x.value) }))
		}
	}
	add("padding that is not zero", "padding of", flipped(good, f, 0, 512+100))

	// Missing, additional and reordered members.
	for i := range n {
		add(fmt.Sprintf("member %d is missing", i), "", f.join(slices.Concat(f.members[:i], f.members[i+1:])...))
		add(fmt.Sprintf("member %d is there twice", i), "", f.before(i, f.members[i]))
		if i+1 < n {
			list := slices.Clone(f.members)
			list[i], list[i+1] = list[i+1], list[i]
			add(fmt.Sprintf("members %d and %d are exchanged", i, i+1), "", f.join(list...))
		}
		add(fmt.Sprintf("a further member before %d", i), "", f.before(i, entry('0', "extra", "", []byte("x"))))
		further := world.Member("blobs/sha256/"+bundle.DigestOf([]byte("x")).Hex(), []byte("x"))
		add(fmt.Sprintf("a further blob before %d", i), "", f.before(i, further))
	}
	add(
		"a further root at the end, other than the first",
		"",
		f.join(append(slices.Clone(f.members), world.Member(bundle.NameIndex, []byte("{}")))...),
	)
	return rows
}

func takeApart(tb testing.TB, good []byte) tarFile {
	tb.Helper()
	var f tarFile
	r := bytes.NewReader(good)
	t := tar.NewReader(r)
	for at := 0; ; {
		h, err := t.Next()
		if err != nil {
			f.end = good[at:]
			break
		}
		end := at + 512 + int(h.Size+511)&^511
		f.members = append(f.members, good[at:end])
		at = end
	}
	if len(f.end) != 1024 || len(f.members) < 5 {
		tb.Fatalf("%d members, and %d bytes at the end", len(f.members), len(f.end))
	}
	return f
}

// flipped returns the bundle with one bit of a member changed.
func flipped(good []byte, f tarFile, member, at int) []byte {
	for _, m := range f.members[:member] {
		at += len(m)
	}
	out := bytes.Clone(good)
	out[at] ^= 1
	return out
}

// gnuSparse returns an old GNU sparse entry: no data, and one hole of 1 TiB.
func gnuSparse() []byte {
	return entry('S', "sparse", "", nil, func(h []byte) {
		field(h, 257, 8, "ustar  \x00")
		field(h, 386, 24, "00000000000\x0000000000000\x00")
		copy(h[483:495], "\x80\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00")
	})
}

func gzipOf(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	world.Must(err)
	world.Must(w.Close())
	return b.Bytes()
}

func zstdOf(data []byte) []byte {
	e, err := zstd.NewWriter(nil)
	world.Must(err)
	return e.EncodeAll(data, nil)
}

func zipOf(data []byte) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create("app.oob.tar")
	world.Must(err)
	_, err = f.Write(data)
	world.Must(err)
	world.Must(w.Close())
	return b.Bytes()
}
