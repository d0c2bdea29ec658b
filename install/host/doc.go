// Package host lays out a deployment's files on the host. Each deployment has a directory
// below ROOT/deployments:
//
//	NAME/releases/ID/   the files of one release; never changed afterwards
//	NAME/current        symbolic link to the current release; replacing it is the switch
//	NAME/secrets.json   generated passwords (0600)
//	NAME/data/          data of the programs; its directories are created once
//	NAME/replaced/      the host's files that links have replaced
//	NAME/backups/       dumps of the database
//	NAME/started.json   the release that was started last, and the dump from before it
//
// Outside this directory there are only the data directory, if the site names another one, and
// symbolic links to files in current, at the places that bundle.IsLinkPlace allows. One rename
// therefore switches all files at once.
//
//	Deployment + values + secrets ─New→ Release ─Stage→ on disk ─Switch→ current
//
// A release's ID is a hash of the bundle's identity, the site's values, the registry's address
// and everything else that its files depend on. The same bundle with other values is another
// release.
package host
