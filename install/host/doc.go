// Package host lays a deployment's files out on the host: below ROOT/deployments,
// one directory for each deployment,
//
//	NAME/releases/ID/   what one installation consists of; never changed afterwards
//	NAME/current        a symbolic link to one of them: the switch
//	NAME/secrets.json   passwords, made here once (0600)
//	NAME/data/          what the programs keep; made once, never touched again
//	NAME/replaced/      files of the host's that a link has taken the place of
//	NAME/backups/       dumps of the database
//	NAME/started.json   which release was started last, and the dump from before it
//
// and outside of it only symbolic links to files in current, at the places that
// bundle.IsLinkPlace knows. So one rename puts everything in its place or back.
//
//	Deployment + values + secrets ─New→ Release ─Stage→ on disk ─Activate→ current
//
// A release's ID is a hash of the bundle's identity, the site's values and the
// address of the registry: the same bundle with other values is another release.
package host
