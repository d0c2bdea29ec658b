//go:build !linux

package network

// connectFaults returns none: it would need several loopback addresses, which only Linux has
// by default.
func connectFaults() []Fault { return nil }
