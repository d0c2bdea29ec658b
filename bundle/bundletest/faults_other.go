//go:build !linux

package bundletest

// connectFaults want more addresses of this machine than other systems have.
func connectFaults() []Fault { return nil }
