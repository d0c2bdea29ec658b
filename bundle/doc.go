// Package bundle is the format: it defines the bytes of a bundle. It does not define
// where the bytes come from, whom to trust, or where they go. This comment is the
// normative text. With it and the specifications that it names, a second implementation
// can be written. Must, may and should have the meaning of RFC 2119.
//
// # Overview
//
// A bundle is one uncompressed POSIX tar. Its bytes are a pure function of three things:
// index.json, the signature slot, and the blobs. It is an OCI image layout (image-spec
// 1.1, image-layout.md) and a Docker archive at once. There is exactly one encoding: a
// reader computes every byte that is not content, and compares. It skips nothing and
// tolerates nothing.
//
// # Members
//
// A bundle has these members, in this order, each once, and no others:
//
//	oci-layout           {"imageLayoutVersion":"1.0.0"}   (30 bytes)
//	index.json           the root, at most 4 MiB; the only member that is signed
//	signatures.jsonl     the slot, 65,536 bytes
//	blobs/sha256/HEX     every blob once, in the order of the walk
//	manifest.json        the load list
//
// Exactly 1,024 zero bytes follow the last member, and then the file ends.
//
// # Headers
//
// Each member begins with one USTAR header (POSIX.1-1988) of 512 bytes:
//
//	offset  length  content
//	     0     100  the name, NUL-padded
//	   100       8  "0000644" NUL (mode)
//	   108       8  "0000000" NUL (uid), and the same at 116 (gid)
//	   124      12  the size, eleven octal digits, NUL
//	   136      12  "00000000000" NUL (mtime)
//	   148       8  the checksum: six octal digits, NUL, space
//	   156       1  "0" (regular file)
//	   157     100  NUL (link name)
//	   257       8  "ustar" NUL "00"
//	   265      64  NUL (user and group name)
//	   329      16  "0000000" NUL, twice (device numbers)
//	   345     167  NUL (prefix, and the rest of the block)
//
// The content follows, then zero bytes up to a multiple of 512. A member larger than
// 8,589,934,591 bytes has a PAX extended header (POSIX.1-2001) before its own header. The
// extended header has the type "x" and the name blobs/sha256/PaxHeaders.0/HEX; everything
// else is as above. Its only record is "LENGTH size=SIZE" and a newline, zero-padded to
// 512. The size field of the member's own header is then "00000000000" NUL.
//
// # Volumes
//
// For media that hold less, a bundle may be kept in volumes NAME.001, NAME.002 and so on
// up to NAME.999. They are consecutive ranges of the bundle's bytes, without anything
// added. All have the same size but the last, which may be smaller. A reader is given the
// first volume and must find the others beside it. Together they must be the bundle, byte
// for byte; no other rule applies to them.
//
// # The root
//
// index.json is an OCI image index with artifactType application/vnd.oobbundle.bundle.v1.
// Its SHA-256 is the identity of the bundle. It is a document of this format (see JSON),
// with the fields schemaVersion, mediaType, artifactType, manifests and annotations.
// These annotations must be present:
//
//	dev.oobbundle.name                 [a-z0-9]+([._-][a-z0-9]+)*, at most 128 bytes
//	dev.oobbundle.version              [A-Za-z0-9][A-Za-z0-9._+-]*, at most 128
//	dev.oobbundle.channel              [A-Za-z0-9][A-Za-z0-9._+/-]*, at most 255
//	dev.oobbundle.sequence             a decimal number from 0 to 2^63-1, no leading zeros
//	dev.oobbundle.platforms            OS/ARCHITECTURE[/VARIANT], joined by commas
//	org.opencontainers.image.created   RFC 3339; for display only
//
// Any annotation that starts with dev.oobbundle. and is not described here, in the root,
// in its descriptors, or in a manifest whose artifactType starts with
// application/vnd.oobbundle., means a newer format. The reader must refuse the bundle as
// one of a newer format, and must not guess.
//
// The manifests of the root are, in this order:
//
//   - the deployment document: a manifest with artifactType
//     application/vnd.oobbundle.deployment.v1, OCI's empty config, and one layer of the
//     type application/vnd.oobbundle.deployment.v1+json;
//   - the list of the content and the statement of how the bundle was made, if the bundle
//     has them: manifests with artifactType application/vnd.oobbundle.sbom.v1 and
//     application/vnd.oobbundle.provenance.v1, whose only layers are a CycloneDX document
//     (application/vnd.cyclonedx+json) and an in-toto statement
//     (application/vnd.in-toto+json);
//   - for each reference, in the order of the author's document, its carried content. An
//     image, or an index whose manifests are all carried, is one descriptor with the
//     annotation org.opencontainers.image.ref.name, which is the upstream reference in
//     full (HOST[:PORT]/NAME[:TAG][@DIGEST]). If only some manifests of an index are
//     carried, each of these is a descriptor with that annotation and its platform. The
//     attestations that describe one of them follow, without the annotation. The last is
//     a manifest with artifactType application/vnd.oobbundle.partial-index.v1. Its only
//     layer, of that type with +json and with the annotation dev.oobbundle.media-type, is
//     the unchanged upstream index. The manifests that describe the image (signatures,
//     attestations, SBOMs) follow. Those with a subject have no annotation. Those that
//     upstream keeps under a cosign tag (sha256-HEX.sig, .att or .sbom) have the
//     annotation like any other reference;
//   - Helm charts, in Helm's media types and with the annotation, as HOST/PATH of their
//     repository, their name, and their version as the tag;
//   - plugins: manifests with artifactType application/vnd.oobbundle.plugin.v1. The first
//     layer (application/vnd.oobbundle.plugin.v1.tar+gzip) is the archive. The second
//     (application/pgp-signature), if there is one, is the publisher's detached
//     signature. The third (application/pgp-keys), if there is one, is the public key of
//     that signature;
//   - files for the host: manifests with artifactType application/vnd.oobbundle.file.v1
//     and one layer (application/octet-stream). No path starts with a dot or is
//     release.json, regardless of case.
//
// The root lists equal manifests once. The deployment document determines the meaning of
// a manifest without a reference. The reader must find in the root a manifest with the
// type and layers described here.
//
// Every descriptor of the root must be of a manifest type. A reference is on one
// descriptor, or on several that all have different platforms.
//
// # The walk
//
// A depth-first walk of the root gives the blobs their order. Visiting a descriptor:
//
//  1. If its digest has no place yet, it gets the next one. If it has one, the sizes must
//     be equal.
//  2. If its media type is that of an OCI or Docker (schema 2) manifest or index, and the
//     digest has not been descended into, its content is verified and parsed, and its
//     children are visited in order. The children of an index are its manifests; those of
//     a manifest are the config, then the layers. A subject is not visited.
//
// So the tree is closed: it contains everything that is named, except subjects. A
// descriptor with urls must be refused, because its content would have to be fetched. A
// descriptor with data must have the right data. A manifest's own mediaType, if it has
// one, must be that of its descriptor; a manifest of a Docker type must have one. An
// index must have manifests and neither config nor layers, and each of its manifests must
// be of a manifest type. A manifest must have a config and no manifests, and neither its
// config nor a layer may be of a manifest type. A Docker manifest with a layer of the
// type application/vnd.docker.image.rootfs.foreign.diff.tar.gzip must be refused: it
// would need a URL. Schema 1 is refused.
//
// # The load list
//
// manifest.json is the list that docker load reads. It is a compact JSON array with one
// object {"Config":…,"RepoTags":[…],"Layers":[…]} for each reference, in the order in
// which the root first names it. The object describes the first manifest met, in the
// order of the walk, at or below the first descriptor with that reference, that an engine
// can run. An engine can run a manifest if its config is of OCI's or Docker's image
// config type, and every layer is a tar, plain, gzip or zstd, of OCI's or Docker's layer
// types. References without such a manifest are left out. Paths are blobs/sha256/HEX. The
// one tag is the reference without its digest. If the reference has no tag either, its
// tag is "sha256-" and the first 16 digits of the digest of the descriptor.
//
// # The slot
//
// Each line of signatures.jsonl is a Sigstore bundle v0.3 in JSON (protobuf-specs,
// sigstore_bundle.proto) with a message signature over the bytes of index.json:
//
//	{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",
//	 "verificationMaterial":{"publicKey":{"hint":"HINT"}},
//	 "messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"DIGEST"},
//	 "signature":"SIGNATURE"}}
//
// A line has this order, without the line breaks shown here and without spaces. HINT,
// DIGEST and SIGNATURE are base64 with padding (RFC 4648 section 4, unused bits zero).
// HINT is the SHA-256 of the key's SubjectPublicKeyInfo in DER. DIGEST is the SHA-256 of
// index.json. SIGNATURE is the signature: ECDSA P-256 with SHA-256 in ASN.1 DER, Ed25519
// (RFC 8032, not prehashed), or RSASSA-PKCS1-v1_5 with SHA-256 and a modulus of 3,072
// bits or more. A line ends in a newline (0x0A). There are 1 to 32 lines, by different
// keys. Every byte after the last line is a newline. A reader must encode each line again
// and compare.
//
// A reader refuses a bundle in which a line is over another digest, or a line by a key
// that it trusts is wrong, or names another key, whatever the other lines contain. A line
// by a key that the reader does not know counts for nothing. The hint finds the key and
// proves nothing.
//
// # The order of reading
//
// A reader must verify the signatures with no more than the first three members, of which
// it parses only the slot. It may parse index.json when a trusted signature is good, and
// everything else after that. It verifies a manifest against its parent before it parses
// the manifest. The size in the header of index.json is the only number taken from an
// unverified header; the header is then compared like all others.
//
// # JSON
//
// Documents of this format (index.json, the deployment document, lines of the slot) are
// refused if they have duplicate keys, also keys that differ only in case; unknown
// fields; null; data after the document; invalid UTF-8, lone surrogates or NUL; numbers
// that are not plain integers in range. In upstream manifests, unknown fields and null
// are accepted. Duplicate keys, also keys that differ only in case, are refused. Outside
// of annotations, keys that are not ASCII, or that differ only in case from a field of
// the OCI specification, are refused too. Digests are sha256 in lower case, everywhere.
//
// [Deployment] describes the deployment document. It must name the same references as the
// root, with the same digests. Its charts must be among its images. A plugin's id has 3
// to 190 of a-z, 0-9 and . _ -. A file's path is relative, with slashes, without empty, .
// or .. components, of printable ASCII without \ : * ? " < > |. The path has at most 255
// bytes in each component and 1,024 in all, and is unique without regard to case. A
// file's mode is 0 and three octal digits that let neither group nor others write. The
// repository of an image on a site has at most 255 bytes. Components name only content
// that is present. [Host] describes the part about the host: no file that is merged into
// is also a directory, and modes below the data directory do not let others write.
// docs/host.md describes what an installer does with that part.
//
// # Limits
//
// index.json, manifests and the deployment document: 4 MiB and 200,000 objects each. All
// manifests together: 64 MiB. A blob: 16 TiB. Blobs: 100,000. Descriptors in the root:
// 2,000; met on the walk: 1,000,000. Layers named in the load list: 254,000. Depth: 6,
// where the root is 0. The comments of the constants give the reasons.
//
// # A worked example
//
// testdata/example.oob.tar is the bundle of one image with one layer, 1,024 zero bytes.
// These are its members, with the offset of the header, the offset of the content, and
// the size:
//
//	    0    512     30  oci-layout
//	 1024   1536    823  index.json
//	 2560   3072  65536  signatures.jsonl
//	68608  69120    450  blobs/sha256/db33e400…
//	69632  70144      2  blobs/sha256/44136fa3…
//	70656  71168    393  blobs/sha256/830b277b…
//	71680  72192    396  blobs/sha256/b40b6ae9…
//	72704  73216     78  blobs/sha256/c5b1d636…
//	73728  74240   1024  blobs/sha256/5f70bf18…
//	75264  75776    224  manifest.json
//
// The end is at 76,288, and the file has 77,312 bytes. This is the first header, without
// its NULs at the end of the name and after the version:
//
//	  0  6f 63 69 2d 6c 61 79 6f 75 74                     oci-layout
//	100  30 30 30 30 36 34 34 00  30 30 30 30 30 30 30 00  0000644. 0000000.
//	116  30 30 30 30 30 30 30 00                           0000000.
//	124  30 30 30 30 30 30 30 30 30 33 36 00               00000000036.
//	136  30 30 30 30 30 30 30 30 30 30 30 00               00000000000.
//	148  30 31 31 32 31 34 00 20  30                       011214.  0
//	257  75 73 74 61 72 00 30 30                           ustar.00
//	329  30 30 30 30 30 30 30 00  30 30 30 30 30 30 30 00  0000000. 0000000.
//
// The six blobs are the deployment document's manifest, the empty config and the document
// itself, then the image's manifest, its config and its layer.
package bundle
