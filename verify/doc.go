// Package verify decides whether a bundle can be trusted. It checks, in this order: the
// signatures over index.json, the site's policy, every header and manifest, and, on demand,
// every payload byte. It parses no content of a bundle before the signatures are verified.
//
// Only Open creates a Verified, and package install accepts nothing else: trust is a type. The
// package only reads; it does not write or use the network.
package verify
