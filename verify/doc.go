// Package verify decides whether a bundle may be believed. It checks, in this
// order: the signatures over index.json, the site's policy, every header and
// manifest, and, on demand, every payload byte. Nothing of a bundle is parsed
// before the signatures are good.
//
// Open is the only maker of a Verified, and install accepts nothing else: trust
// is a type. The package reads; it neither writes nor talks to a network.
package verify
