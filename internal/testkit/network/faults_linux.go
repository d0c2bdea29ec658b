package network

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/internal/testkit/world"
)

// connectFaults needs several loopback addresses, which only Linux has by default.
func connectFaults() []Fault {
	return []Fault{
		{Name: "connect: refused", Class: remote.ErrRegistry, Says: []string{"$HOST", "connection refused", "is it running?"},
			Answer: func(testing.TB, *Host) Answer { return Answer{Address: netip.AddrFrom4([4]byte{127, 0, 0, 2})} }},
		{Name: "connect: timeout", Class: remote.ErrRegistry, Says: []string{"$HOST", "nothing answers", "HTTPS_PROXY"}, Hurry: true,
			Answer: func(tb testing.TB, h *Host) Answer { return deafAddress(tb, h.port()) }},
	}
}

// deafAddress returns an address that accepts no connection, because its queue of pending
// connections is full.
func deafAddress(tb testing.TB, port int) Answer {
	tb.Helper()
	a := netip.AddrFrom4([4]byte{127, 0, 0, 3})
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	world.Must(err)
	tb.Cleanup(func() { _ = syscall.Close(fd) })
	world.Must(syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: a.As4()}))
	world.Must(syscall.Listen(fd, 0))
	for range 3 {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, uint16(port)).String(), 100*time.Millisecond)
		if err == nil {
			tb.Cleanup(func() { shut(c) })
		}
	}
	return Answer{Address: a}
}
