package registry

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"
)

// TestCertificateDates: a certificate whose dates do not match the clock is reported. A
// certificate made here is valid on a machine without a clock battery.
func TestCertificateDates(t *testing.T) {
	cert, _, err := LoadOrMake(t.TempDir(), []string{"registry.site"})
	if err != nil {
		t.Fatal(err)
	}
	date := func(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	old := &x509.Certificate{NotBefore: date(2000), NotAfter: date(2099)}
	for name, x := range map[string]struct {
		cert *x509.Certificate
		now  time.Time
		want string
	}{
		"made here, at the epoch": {cert.Leaf, time.Unix(0, 0), ""},
		"made here, today":        {cert.Leaf, time.Now(), ""},
		"older, at the epoch": {old, time.Unix(100, 0), "not valid before 2000-01-01, and the clock of this machine is " +
			"at 1970-01-01; set the clock"},
		"older, today": {old, date(2026), ""},
		"expired":      {old, date(2100), "was valid until 2099-01-01"},
	} {
		if got := DateProblem(x.cert, x.now); (got == "") != (x.want == "") || !strings.Contains(got, x.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
