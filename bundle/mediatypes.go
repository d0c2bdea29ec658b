package bundle

// Media types of the OCI image specification 1.1 and of Docker's schema 2.
const (
	TypeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	TypeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	TypeOCIConfig      = "application/vnd.oci.image.config.v1+json"
	TypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	TypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	TypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	TypeEmpty          = "application/vnd.oci.empty.v1+json"

	typeDockerForeign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
)

// Media and artifact types of this format.
const (
	// TypeBundle is the artifactType of the root.
	TypeBundle = "application/vnd.oobbundle.bundle.v1"
	// TypeDeployment is the artifactType of the deployment document's
	// manifest, and with +json the media type of the document.
	TypeDeployment = "application/vnd.oobbundle.deployment.v1"
	// TypePartialIndex is the artifactType of a manifest whose one layer is an upstream index
	// that names more platforms than the bundle carries. The layer's media type is this with
	// +json, so that no reader descends into it.
	TypePartialIndex = "application/vnd.oobbundle.partial-index.v1"
	// TypePlugin is the artifactType of a plugin. Its layers are the archive, then the
	// detached signature, if there is one, then the signature's public key, if the server does
	// not already contain that key.
	TypePlugin = "application/vnd.oobbundle.plugin.v1"
	// TypeFile is the artifactType of a file for the host; its layer is the file.
	TypeFile = "application/vnd.oobbundle.file.v1"
	// TypeSBOM is the artifactType of the list of the bundle's content; its layer is a
	// CycloneDX document.
	TypeSBOM = "application/vnd.oobbundle.sbom.v1"
	// TypeProvenance is the artifactType of the statement of how the bundle was made; its
	// layer is an in-toto statement.
	TypeProvenance = "application/vnd.oobbundle.provenance.v1"
	// TypeSignatures is the artifactType under which the signature slot is
	// pushed to an external registry; its subject is the root.
	TypeSignatures = "application/vnd.oobbundle.signatures.v1"
)

// Media types of layers in the artifacts of this format.
const (
	TypePluginArchive   = "application/vnd.oobbundle.plugin.v1.tar+gzip"
	TypePluginSignature = "application/pgp-signature"
	TypePluginKey       = "application/pgp-keys"
	TypeFileContent     = "application/octet-stream"
	TypeCycloneDX       = "application/vnd.cyclonedx+json"
	TypeInToto          = "application/vnd.in-toto+json"
)

// IsIndex reports whether the media type is that of an index or manifest list.
func IsIndex(mediaType string) bool { return mediaType == TypeOCIIndex || mediaType == TypeDockerList }

// IsManifest reports whether the walk descends into content of this type.
func IsManifest(mediaType string) bool {
	return IsIndex(mediaType) || mediaType == TypeOCIManifest || mediaType == TypeDockerManifest
}

// isImageConfig reports whether the type is that of a runnable image's config.
func isImageConfig(mediaType string) bool {
	return mediaType == TypeOCIConfig || mediaType == TypeDockerConfig
}

// isFilesystemLayer reports whether an engine would unpack a layer of this type.
func isFilesystemLayer(mediaType string) bool {
	switch mediaType {
	case "application/vnd.oci.image.layer.v1.tar",
		"application/vnd.oci.image.layer.v1.tar+gzip",
		"application/vnd.oci.image.layer.v1.tar+zstd",
		"application/vnd.docker.image.rootfs.diff.tar",
		"application/vnd.docker.image.rootfs.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.diff.tar.zstd":
		return true
	}
	return false
}
