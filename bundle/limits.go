package bundle

// Limits of format version 1. Each bounds the work or the memory that hostile bytes can cause.
// No real deployment reaches them.
const (
	// MaxManifest bounds index.json and every manifest, in bytes. Registries
	// accept no larger manifest (distribution: 4 MiB), so a larger one could
	// not be installed.
	MaxManifest = 4 << 20
	// MaxManifests bounds all manifests of a bundle together, in bytes. Their parsed content
	// is held in memory, where it is up to nine times as large.
	MaxManifests = 64 << 20
	// MaxDeployment bounds the deployment document, in bytes: it is held in
	// memory, and grows with the number of images and files.
	MaxDeployment = 4 << 20
	// MaxObjects bounds the objects in index.json, a manifest, or the deployment document: a
	// decoded empty object takes a hundred times its two bytes. Descriptors with platforms and
	// annotations fill a manifest of 4 MiB before they reach it.
	MaxObjects = 200_000
	// MaxTemplate bounds a file that is rewritten on the host, in bytes: the file and the
	// result are held in memory.
	MaxTemplate = 4 << 20
	// MaxBlob bounds one blob, in bytes (16 TiB): with MaxMembers no sum of
	// sizes overflows an int64.
	MaxBlob = 1 << 44
	// MaxMembers bounds the number of blobs: their places are kept in memory
	// (about 300 bytes each).
	MaxMembers = 100_000
	// MaxDescriptors bounds the descriptors met on the walk, repeated ones
	// included: manifests may share children, and time grows with the edges.
	MaxDescriptors = 1_000_000
	// MaxReferences bounds the descriptors of the root: an installation walks the tree below
	// each of them.
	MaxReferences = 2_000
	// MaxLoadLayers bounds the layers that the load list names, repeated ones
	// included: many references may share a manifest of many layers. It is
	// MaxReferences images of 127 layers, the most that Docker takes.
	MaxLoadLayers = MaxReferences * 127
	// MaxRecord bounds a document that a host keeps (state, receipts, trust), in
	// bytes: it is held in memory. The largest lists a release's files.
	MaxRecord = 64 << 20
	// MaxDepth bounds the nesting of indexes. The root is 0; an image in an
	// index in the root is 2.
	MaxDepth = 6
	// MaxName bounds names, versions, channels and references, in bytes: they
	// become parts of file names (255 on every file system that matters).
	MaxName = 255
	// SlotSize is the size of signatures.jsonl, in bytes. It is fixed, so that
	// a signature can be added without moving anything.
	SlotSize = 64 << 10
	// MaxSignatures bounds the lines in the slot; 32 RSA-8192 lines fit.
	MaxSignatures = 32
)
