package hostile

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// HostileContent returns bundles that are signed by the key and must be refused: the signer is
// malicious or has a bug.
func HostileContent(tb testing.TB, key *world.Key) []Hostile {
	tb.Helper()
	var rows []Hostile
	file := func(name, text string, want error, change func(c *world.Content)) {
		c := world.Rich("x")
		change(c)
		rows = append(rows, Hostile{name, c.File(tb, key), want, text})
	}
	good := world.Rich("x")
	root := good.IndexJSON()
	bundleOf := good.File(tb, key)

	// The root itself. The content after it does not need to match, because the root is
	// refused first.
	for _, r := range Documents(tb, root, `"schemaVersion":2`) {
		rows = append(rows, Hostile{"index.json: " + r.Name, world.Resign(tb, bundleOf, r.Data, key), r.Want, ""})
	}
	inRoot := func(name, text string, want error, from, to string) {
		changed := bytes.Replace(root, []byte(from), []byte(to), 1)
		if bytes.Equal(changed, root) {
			tb.Fatalf("%s: %s is not in the root", name, from)
		}
		rows = append(rows, Hostile{"index.json: " + name, world.Resign(tb, bundleOf, changed, key), want, text})
	}
	first := good.Roots[0]
	size := fmt.Sprintf(`"size":%d`, first.Size)
	for _, d := range digests(first.Digest) {
		inRoot("a digest "+d.name, "not a sha256 digest", bundle.ErrFormat, string(first.Digest), d.spelled)
	}
	inRoot(
		"a digest of something else",
		"header of blobs",
		bundle.ErrFormat, string(first.Digest), string(bundle.DigestOf([]byte("elsewhere"))),
	)
	for _, n := range []string{"-1", "1e3", "1.0", "9223372036854775808", "9007199254740993.0", `"1"`} {
		inRoot("a size "+n, "", bundle.ErrFormat, size, `"size":`+n)
	}
	inRoot("a size 2^53+1", "more than a bundle can hold", bundle.ErrLimit, size, `"size":9007199254740993`)
	inRoot("a size 2^63-1", "more than a bundle can hold", bundle.ErrLimit, size, `"size":9223372036854775807`)
	inRoot("a size of more than a manifest may have", "at most", bundle.ErrLimit, size, fmt.Sprintf(`"size":%d`, bundle.MaxManifest+1))
	inRoot("a size of one byte more", "", bundle.ErrFormat, size, fmt.Sprintf(`"size":%d`, first.Size+1))
	inRoot("a size of one byte less", "", bundle.ErrFormat, size, fmt.Sprintf(`"size":%d`, first.Size-1))
	inRoot(
		"a layer among the manifests",
		"no manifest",
		bundle.ErrFormat,
		`"mediaType":"`+bundle.TypeOCIManifest+`"`,
		`"mediaType":"`+world.TypeLayer+`"`,
	)
	inRoot(
		"a media type that a terminal obeys",
		"media type",
		bundle.ErrFormat,
		`"mediaType":"`+bundle.TypeOCIManifest+`"`,
		`"mediaType":"\u001b[2J"`,
	)
	inRoot(
		"no manifests",
		"begin with a deployment",
		bundle.ErrFormat,
		string(root[bytes.Index(root, []byte(`"manifests":[`)):bytes.LastIndex(root, []byte(`],"annotations"`))]),
		`"manifests":[`,
	)
	inRoot("a manifest to be fetched elsewhere", "cannot cross an air gap", bundle.ErrPolicy, size, size+`,"urls":["https://example.com/"]`)
	inRoot("embedded data that is not the manifest's", "embedded data", bundle.ErrDigest, size, size+`,"data":"eHg="`)
	inRoot("embedded data that is no base64", "", bundle.ErrFormat, size, size+`,"data":"!"`)
	inRoot(
		"a newer annotation",
		"newer version",
		bundle.ErrNewer,
		`"annotations":{"dev.oobbundle.channel"`,
		`"annotations":{"dev.oobbundle.delta":"x","dev.oobbundle.channel"`,
	)
	for _, ref := range []string{
		"one:1", "docker.io/library/one:1@sha256:x", "DOCKER.IO/library/one:1", "docker.io/library/../one:1",
		"docker.io/library/one:\\u001b", "docker.io/library/one:1 ", "", strings.Repeat("a", 300),
	} {
		inRoot(fmt.Sprintf("the reference %.30q", ref), "not one in full", bundle.ErrFormat, `"docker.io/library/one:1"`, `"`+ref+`"`)
	}
	for _, x := range [][2]string{
		{`"dev.oobbundle.sequence":"7"`, `"dev.oobbundle.sequence":"-7"`}, {`"dev.oobbundle.sequence":"7"`, `"dev.oobbundle.sequence":"07"`},
		{`"dev.oobbundle.sequence":"7"`, `"dev.oobbundle.sequence":"9223372036854775808"`},
		{`"dev.oobbundle.sequence":"7"`, `"dev.oobbundle.sequence":"7e0"`}, {`"dev.oobbundle.sequence":"7"`, `"dev.oobbundle.sequence":""`},
		{`"dev.oobbundle.channel":"rich"`, `"dev.oobbundle.channel":"../rich"`},
		{`"dev.oobbundle.channel":"rich"`, `"dev.oobbundle.channel":"rich\n"`},
		{`"dev.oobbundle.name":"rich"`, `"dev.oobbundle.name":"Rich"`}, {`"dev.oobbundle.name":"rich"`, `"dev.oobbundle.name":"rich/../x"`},
		{`"dev.oobbundle.version":"1.0.0"`, `"dev.oobbundle.version":"1.0.0/.."`},
		{`"dev.oobbundle.version":"1.0.0"`, `"dev.oobbundle.version":"\u202e1.0.0"`},
		{`"dev.oobbundle.platforms":"linux/amd64"`, `"dev.oobbundle.platforms":""`},
		{`"2026-01-02T03:04:05Z"`, `"2026-01-02"`}, {`"2026-01-02T03:04:05Z"`, `"2026-02-30T03:04:05Z"`}, {`"2026-01-02T03:04:05Z"`, `""`},
	} {
		inRoot("the annotation "+strings.TrimPrefix(x[1], `"dev.oobbundle.`), "", bundle.ErrFormat, x[0], x[1])
	}
	rows = append(rows, Hostile{"index.json: two manifests for one reference", twoMeanings(tb, key), bundle.ErrFormat, "two meanings"})

	// The deployment document.
	document := world.Encode(good.Doc)
	for _, r := range Documents(tb, document, `"size":8`) {
		file("deployment: "+r.Name, "deployment document", r.Want, func(c *world.Content) { c.Document = func([]byte) []byte { return r.Data } })
	}
	inDocument := func(name, text string, want error, change func(d *bundle.Deployment)) {
		file("deployment: "+name, text, want, func(c *world.Content) { change(&c.Doc) })
	}
	inDocument("a reference more", "the root ", bundle.ErrFormat, func(d *bundle.Deployment) {
		i := d.Images[0]
		i.Reference, i.Tag = "docker.io/library/one:9", "9"
		d.Images = append(d.Images, i)
	})
	inDocument("a reference less", "", bundle.ErrFormat, func(d *bundle.Deployment) { d.Images = d.Images[1:] })
	inDocument("a reference twice", "duplicate reference", bundle.ErrFormat, func(d *bundle.Deployment) {
		d.Images = append(d.Images, d.Images[0])
	})
	inDocument(
		"two tags exchanged",
		"",
		bundle.ErrFormat,
		func(d *bundle.Deployment) { d.Images[0].Tag, d.Images[1].Tag = d.Images[1].Tag, d.Images[0].Tag },
	)
	inDocument("two digests exchanged", "the root ", bundle.ErrFormat, func(d *bundle.Deployment) {
		d.Images[0].Digest, d.Images[1].Digest = d.Images[1].Digest, d.Images[0].Digest
	})
	inDocument(
		"an image elsewhere on the site",
		"for the site",
		bundle.ErrFormat,
		func(d *bundle.Deployment) { d.Images[0].Repository = "docker.io/library/two" },
	)
	inDocument(
		"a repository outside",
		"for the site",
		bundle.ErrFormat,
		func(d *bundle.Deployment) { d.Images[0].Repository = "../../oob-bundle/rich" },
	)
	inDocument("a complete index called partial", "the root ", bundle.ErrFormat, func(d *bundle.Deployment) { d.Images[2].Partial = true })
	inDocument("a referrer from nowhere", "the root does not list", bundle.ErrFormat, func(d *bundle.Deployment) {
		d.Images[0].Referrers = []bundle.Digest{bundle.DigestOf([]byte("x"))}
	})
	inDocument(
		"an attestation that is a path",
		"the root does not list",
		bundle.ErrFormat,
		func(d *bundle.Deployment) { d.Images[0].Attestations = []bundle.Digest{"sha256:../../etc/passwd"} },
	)
	for _, p := range []string{
		"/etc/passwd", "../x", "a/../../x", "./x", "a//b", "a/", "", ".", "..", `a\b`, "C:x", "a\nb", "a\x1b[2J", "caf\u00e9",
		"a\u202eb", "a*", "con|x", strings.Repeat("d/", 600) + "x", strings.Repeat("n", 256), "d/" + strings.Repeat("n", 300) + "/x",
	} {
		inDocument(fmt.Sprintf("the path %.30q", p), "invalid file path", bundle.ErrFormat, func(d *bundle.Deployment) { d.Files[0].Path = p })
	}
	for _, m := range []string{
		"4755", "2755", "1777", "755", "0999", "0o644", "-644", "", "00644", "0644\n", "0666", "0646", "0664", "0777", "0602", "0720",
	} {
		inDocument(fmt.Sprintf("the mode %q", m), "has the mode", bundle.ErrFormat, func(d *bundle.Deployment) { d.Files[0].Mode = m })
	}
	inDocument(
		"two paths that differ in case",
		"duplicate",
		bundle.ErrFormat,
		func(d *bundle.Deployment) { d.Files[1].Path = strings.ToUpper(d.Files[0].Path) },
	)
	inDocument(
		"a file that is a directory",
		"a file and a directory",
		bundle.ErrFormat,
		func(d *bundle.Deployment) { d.Files[1].Path = d.Files[0].Path + "/x" },
	)
	inDocument("a file of another size", "the root ", bundle.ErrFormat, func(d *bundle.Deployment) { d.Files[0].Size++ })
	inDocument("a file with a negative size", "has the size -1", bundle.ErrFormat, func(d *bundle.Deployment) { d.Files[0].Size = -1 })
	inDocument("a file of another digest", "the root ", bundle.ErrFormat, func(d *bundle.Deployment) { d.Files[0].Digest = d.Files[1].Digest })
	inDocument(
		"a file that is an image",
		"the root ",
		bundle.ErrFormat,
		func(d *bundle.Deployment) { d.Files[0].Manifest = d.Images[0].Digest },
	)
	for _, id := range []string{"../x", "a/b", "", "A.B.C", "..\\x", strings.Repeat("a", 191)} {
		inDocument(fmt.Sprintf("the plugin %.20q", id), "plugin", bundle.ErrFormat, func(d *bundle.Deployment) { d.Plugins[0].ID = id })
	}
	for _, n := range []string{"../x.tar.gz", "/x", ".x", "", "a b", "-rf"} {
		inDocument(fmt.Sprintf("the plugin's file %q", n), "plugin", bundle.ErrFormat, func(d *bundle.Deployment) { d.Plugins[0].Name = n })
	}
	inDocument(
		"a plugin without the signature that it has",
		"the root ",
		bundle.ErrFormat,
		func(d *bundle.Deployment) { d.Plugins[0].Signature = "" },
	)
	inDocument(
		"a plugin signed by its archive",
		"the root ",
		bundle.ErrFormat,
		func(d *bundle.Deployment) { d.Plugins[0].Signature = d.Plugins[0].Archive },
	)
	inDocument(
		"a component that needs what is not there",
		"not in the bundle",
		bundle.ErrFormat,
		func(d *bundle.Deployment) { d.Components[0].Plugins = []string{"com.example.other"} },
	)
	inDocument(
		"a chart that is no image",
		"not among the images",
		bundle.ErrFormat,
		func(d *bundle.Deployment) { d.Charts[0].Reference = "charts.example.com/x:1" },
	)
	inDocument("another kind", "", bundle.ErrFormat, func(d *bundle.Deployment) { d.Kind = "State" })
	inDocument("of another bundle", "the root of", bundle.ErrFormat, func(d *bundle.Deployment) { d.Version = "2.0.0" })
	for _, text := range []string{"two\nlines", "\x1b]0;x\a", "a\u0085injected: true", "a\u2028injected: true", "a\u202eb", "\u009b2J"} {
		inDocument(
			fmt.Sprintf("a value about %q", text),
			"host: ",
			bundle.ErrFormat,
			func(d *bundle.Deployment) { d.Host.Values[0].About = text },
		)
	}
	for _, l := range []bundle.Link{
		{Path: "/etc/passwd", File: "etc/acme.conf"}, {Path: "/etc/systemd/system/../../passwd", File: "etc/acme.conf"},
		{Path: "etc/systemd/system/x", File: "etc/acme.conf"}, {Path: "/etc/systemd/system/x", File: "../x"},
		{Path: "/etc/systemd/system/", File: "etc/acme.conf"},
	} {
		inDocument(
			fmt.Sprintf("a link at %q to %q", l.Path, l.File),
			"host: ",
			bundle.ErrFormat,
			func(d *bundle.Deployment) { d.Host.Links = []bundle.Link{l} },
		)
	}
	for _, dir := range []bundle.Directory{
		{Path: "../x"}, {Path: "/x"}, {Path: "x", Owner: "root"}, {Path: "x", Owner: "-1:0"},
		{Path: "x", Owner: "9999999999:0"}, {Path: "x", Mode: "4777"},
	} {
		inDocument(
			fmt.Sprintf("a directory %+v", dir),
			"host: ",
			bundle.ErrFormat,
			func(d *bundle.Deployment) { d.Host.Directories = []bundle.Directory{dir} },
		)
	}
	for _, m := range []bundle.Merge{
		{File: "d", Patch: "etc/acme.conf"}, {File: "D", Patch: "etc/acme.conf"}, {File: "d/e", Patch: "etc/acme.conf"},
		{File: "f", Patch: "etc/acme.conf"}, {File: strings.Repeat("n", 256), Patch: "etc/acme.conf"},
		{File: "x", Patch: "etc/acme.conf", Mode: "0666"}, {File: "x", Patch: "etc/none"},
	} {
		inDocument(fmt.Sprintf("a merge %.60s", fmt.Sprintf("%+v", m)), "host: ", bundle.ErrFormat, func(d *bundle.Deployment) {
			d.Host.Directories = []bundle.Directory{{Path: "d/e/g"}, {Path: "d"}}
			d.Host.Merges = []bundle.Merge{m, {File: "f/g", Patch: "etc/acme.conf"}}
		})
	}
	file("deployment: more bytes than are read", "at most", bundle.ErrLimit, func(c *world.Content) {
		c.Document = func(d []byte) []byte { return append(d, bytes.Repeat([]byte(" "), bundle.MaxDeployment)...) }
	})

	rows = append(rows, hostileManifests(tb, key)...)
	return rows
}

// twoMeanings returns a bundle whose root gives the same reference to two images.
func twoMeanings(tb testing.TB, key *world.Key) []byte {
	c := world.Rich("x")
	c.Add("docker.io/library/one:1", c.Image("linux/amd64", "another"))
	return c.File(tb, key)
}

type spelledDigest struct{ name, spelled string }

// digests returns texts that look like digests and are not valid in the format.
func digests(d bundle.Digest) []spelledDigest {
	return []spelledDigest{
		{
			"in upper case",
			"sha256:" + strings.ToUpper(d.Hex()),
		},
		{"of an algorithm in upper case", "SHA256:" + d.Hex()},
		{"that is short", string(d[:70])},
		{"that is long", string(d) + "0"},
		{"without an algorithm", d.Hex()},
		{
			"with a path",
			"sha256:../../../../../../etc/passwd",
		},
		{"with a path of 64 characters", "sha256:" + strings.Repeat("../", 21) + "x"},
		{"of SHA-512", "sha512:" + d.Hex() + d.Hex()},
		{"of SHA-384", "sha384:" + d.Hex() + d.Hex()[:32]},
		{
			"of SHA-1",
			"sha1:" + d.Hex()[:40],
		},
		{"of MD5", "md5:" + d.Hex()[:32]},
		{"of nothing", ""},
		{"of nothing but the algorithm", "sha256:"},
		{"with a space", "sha256: " + d.Hex()[1:]},
		{"with two colons", "sha256::" + d.Hex()[1:]},
		{
			"with a slash",
			"sha256/" + d.Hex(),
		},
		{"with a sign", "sha256:-" + d.Hex()[1:]},
		{"with letters beyond f", "sha256:" + strings.Repeat("g", 64)},
		{"with digits of another script", "sha256:" + strings.Repeat("\u0661", 32)},
	}
}

// hostileManifests returns bundles with manifests that are invalid, made by upstream or by the
// signer. In upstream's documents, only content that two parsers could read differently is
// refused.
func hostileManifests(tb testing.TB, key *world.Key) []Hostile {
	tb.Helper()
	var rows []Hostile
	manifest := func(name, text string, want error, make func(c *world.Content, config, layer string) (mediaType, data string)) {
		c := world.Rich("x")
		config, layer := c.Blob(bundle.TypeOCIConfig, []byte("{}")), c.Blob(world.TypeLayer, []byte("a layer"))
		mediaType, data := make(c, string(world.Encode(config)), string(world.Encode(layer)))
		c.Add("docker.io/library/hostile:1", c.Blob(mediaType, []byte(data)))
		rows = append(rows, Hostile{"manifest: " + name, c.File(tb, key), want, text})
	}
	oci := func(name, text string, want error, format string) {
		manifest(name, text, want, func(_ *world.Content, config, layer string) (string, string) {
			return bundle.TypeOCIManifest, strings.NewReplacer("CONFIG", config, "LAYER", layer).Replace(format)
		})
	}
	const plain = `{"schemaVersion":2,"config":CONFIG,"layers":[LAYER]}`
	bad := func(name, format string) { oci(name, "", bundle.ErrFormat, format) }
	bad("a doubled key", strings.Replace(plain, `{`, `{"layers":[],`, 1))
	bad("a key in another case", strings.Replace(plain, "layers", "Layers", 1))
	bad("a key, and again in another case", strings.Replace(plain, `{`, `{"Config":{},`, 1))
	bad("a key with a long s", strings.Replace(plain, "layers", "layer\u017f", 1))
	bad("a key with a Kelvin sign", strings.Replace(plain, `{`, "{\"\u212aey\":1,", 1))
	bad("a second document", plain+"{}")
	bad("a byte order mark", "\ufeff"+plain)
	bad("invalid UTF-8", strings.Replace(plain, `{`, "{\"x\":\"\xff\",", 1))
	bad("a lone surrogate", strings.Replace(plain, `{`, `{"x":"\ud800",`, 1))
	bad("NUL", strings.Replace(plain, `{`, `{"x":"\u0000",`, 1))
	bad("a version 2.0", strings.Replace(plain, "2", "2.0", 1))
	bad("a version 2e0", strings.Replace(plain, "2", "2e0", 1))
	bad("a version 1", strings.Replace(plain, "2", "1", 1))
	bad("a version of 1 MB", strings.Replace(plain, "2", strings.Repeat("2", 1<<20), 1))
	bad("no version", strings.Replace(plain, `"schemaVersion":2,`, "", 1))
	bad("a list", "["+plain+"]")
	bad("null", "null")
	bad("nothing", " ")
	bad("no config", `{"schemaVersion":2,"layers":[LAYER]}`)
	bad("null for the config", `{"schemaVersion":2,"config":null,"layers":[LAYER]}`)
	bad("an empty config", `{"schemaVersion":2,"config":{},"layers":[LAYER]}`)
	bad("a layer that is null", `{"schemaVersion":2,"config":CONFIG,"layers":[null]}`)
	bad("layers that are an object", `{"schemaVersion":2,"config":CONFIG,"layers":{}}`)
	bad("10^5 lists in each other", strings.Replace(plain, `{`, `{"x":`+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)+`,`, 1))
	bad("schema 1", `{"schemaVersion":1,"name":"x","tag":"1","fsLayers":[{"blobSum":"x"}],"history":[]}`)
	bad("schema 1 that calls itself 2", strings.Replace(plain, `{`, `{"fsLayers":[],`, 1))
	bad("both an index and a manifest", strings.Replace(plain, `{`, `{"manifests":[],`, 1))
	bad("another media type than the one it is listed by", strings.Replace(plain, `{`, `{"mediaType":"`+bundle.TypeOCIIndex+`",`, 1))
	manifest("an index with layers", "", bundle.ErrFormat, func(_ *world.Content, config, layer string) (string, string) {
		return bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":[],"layers":[` + layer + `]}`
	})
	manifest("Docker's without a media type", "no mediaType", bundle.ErrFormat, func(_ *world.Content, config, layer string) (string, string) {
		return bundle.TypeDockerManifest, `{"schemaVersion":2,"config":` + config + `,"layers":[]}`
	})
	with := func(name, text string, want error, change func(layer string) string) {
		manifest(name, text, want, func(_ *world.Content, config, layer string) (string, string) {
			return bundle.TypeOCIManifest, `{"schemaVersion":2,"config":` + config + `,"layers":[` + change(layer) + `]}`
		})
	}
	digest, size := bundle.DigestOf([]byte("a layer")), fmt.Sprintf(`"size":%d`, len("a layer"))
	for _, d := range digests(digest) {
		with(
			"a layer's digest "+d.name,
			"not a sha256 digest",
			bundle.ErrFormat,
			func(l string) string { return strings.Replace(l, string(digest), d.spelled, 1) },
		)
	}
	for _, n := range []string{"-1", "7.0", "7e0", "9223372036854775808", "null", `"7"`} { // null would mean 0, and other offsets
		with("a layer's size "+n, "", bundle.ErrFormat, func(l string) string { return strings.Replace(l, size, `"size":`+n, 1) })
	}
	with(
		"a layer's size 2^53+1",
		"more than a bundle can hold",
		bundle.ErrLimit,
		func(l string) string { return strings.Replace(l, size, `"size":9007199254740993`, 1) },
	)
	with(
		"a layer of 16 TiB that is not there",
		"incomplete",
		bundle.ErrFormat,
		func(l string) string { return strings.Replace(l, size, `"size":17592186044416`, 1) },
	)
	with(
		"a layer listed with two sizes",
		"listed with 7 and with 8 bytes",
		bundle.ErrFormat,
		func(l string) string { return l + "," + strings.Replace(l, size, `"size":8`, 1) },
	)
	with("a layer that is missing", "", bundle.ErrFormat, func(l string) string {
		return strings.Replace(l, string(digest), string(bundle.DigestOf([]byte("missing"))), 1)
	})
	with("a foreign layer with urls", "cannot cross an air gap", bundle.ErrPolicy, func(l string) string {
		return strings.Replace(
			strings.Replace(l, world.TypeLayer, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", 1), size,
			size+`,"urls":["https://example.com/l"]`,
			1,
		)
	})
	for _, t := range []string{bundle.TypeOCIManifest, bundle.TypeOCIIndex, bundle.TypeDockerManifest, bundle.TypeDockerList} {
		with(
			"a layer of the type "+t,
			"as a config or layer",
			bundle.ErrFormat,
			func(l string) string { return strings.Replace(l, world.TypeLayer, t, 1) },
		)
		oci(
			"a config of the type "+t,
			"as a config or layer",
			bundle.ErrFormat,
			strings.Replace(plain, "CONFIG", `{"mediaType":"`+t+`","digest":"`+string(bundle.DigestOf([]byte("{}")))+`","size":2}`, 1),
		)
	}
	manifest("an index of a layer", "not a manifest", bundle.ErrFormat, func(_ *world.Content, _, layer string) (string, string) {
		return bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":[` + layer + `]}`
	})
	for _, field := range []string{"", `,"urls":[]`} {
		manifest(
			"Docker's with a foreign layer"+field,
			"foreign layer",
			bundle.ErrPolicy,
			func(_ *world.Content, config, layer string) (string, string) {
				layer = strings.Replace(layer, world.TypeLayer, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", 1)
				layer = strings.Replace(layer, size, size+field, 1)
				return bundle.TypeDockerManifest, `{"schemaVersion":2,"mediaType":"` + bundle.TypeDockerManifest +
					`","config":` + config + `,"layers":[` + layer + `]}`
			},
		)
	}
	with(
		"data that is not the layer's",
		"embedded data",
		bundle.ErrDigest,
		func(l string) string { return strings.Replace(l, size, size+`,"data":"YSBsYXllUg=="`, 1) },
	)
	with(
		"data that is empty",
		"embedded data",
		bundle.ErrDigest,
		func(l string) string { return strings.Replace(l, size, size+`,"data":""`, 1) },
	)
	with("a layer without a media type", "media type", bundle.ErrFormat, func(l string) string {
		return strings.Replace(l, world.TypeLayer, "", 1)
	})
	with(
		"a layer with a media type of two lines",
		"media type",
		bundle.ErrFormat,
		func(l string) string { return strings.Replace(l, world.TypeLayer, `a\nb`, 1) },
	)
	oci(
		"a subject with a path for a digest",
		"its subject",
		bundle.ErrFormat,
		strings.Replace(plain, `{`, `{"subject":{"mediaType":"x","digest":"sha256:../x","size":1},`, 1),
	)
	manifest("an index in indexes, seven deep", "nested", bundle.ErrLimit, func(c *world.Content, _, _ string) (string, string) {
		d := c.Image("linux/amd64", "deep")
		for range bundle.MaxDepth {
			d = c.Index(d)
		}
		return bundle.TypeOCIIndex, `{"schemaVersion":2,"manifests":[` + string(world.Encode(d)) + `]}`
	})
	manifest("of more than 4 MiB", "at most", bundle.ErrLimit, func(_ *world.Content, config, layer string) (string, string) {
		return bundle.TypeOCIManifest, `{"schemaVersion":2,"config":` + config + `,"layers":[` + layer + `]}` + strings.Repeat(
			" ",
			bundle.MaxManifest,
		)
	})
	partial := func(name, text string, change func(c *world.Content, index bundle.Descriptor, amd bundle.Descriptor)) {
		c := world.NewContent("partial")
		amd, arm := c.Image("linux/amd64", "a"), c.Image("linux/arm64", "b")
		change(c, c.Index(amd, arm), amd)
		rows = append(rows, Hostile{"partial index: " + name, c.File(tb, key), bundle.ErrFormat, text})
	}
	partial("it does not list what is carried", "not in the index", func(c *world.Content, index, _ bundle.Descriptor) {
		c.Partial("example.com/a:1", index, c.Image("linux/amd64", "another"))
	})
	partial("it is no index", "", func(c *world.Content, _, amd bundle.Descriptor) {
		c.Partial("example.com/a:1", c.Blob(bundle.TypeOCIIndex, []byte("rubbish")), amd)
	})
	partial("it has a doubled key", "", func(c *world.Content, index, amd bundle.Descriptor) {
		doubled := append([]byte(`{"manifests":[],`), c.Blobs[index.Digest][1:]...)
		c.Partial("example.com/a:1", c.Blob(bundle.TypeOCIIndex, doubled), amd)
	})
	return rows
}
