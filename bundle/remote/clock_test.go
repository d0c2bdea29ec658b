package remote

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestCertificateDates checks that the error of a certificate that is not valid now names
// both dates and the remedy.
func TestCertificateDates(t *testing.T) {
	date := func(year int) time.Time { return time.Date(year, 3, 4, 0, 0, 0, 0, time.UTC) }
	refused := errors.New("refused")
	for name, x := range map[string]struct {
		cert *x509.Certificate
		now  time.Time
		want []string
	}{
		"a clock at the epoch": {
			&x509.Certificate{NotBefore: date(2000), NotAfter: date(2099)}, time.Unix(60, 0),
			[]string{"begins on 2000-03-04", "at 1970-01-01", "set the clock"},
		},
		"a clock that is late": {
			&x509.Certificate{NotBefore: date(2026), NotAfter: date(2027)}, date(2025),
			[]string{"begins on 2026-03-04", "at 2025-03-04", "set the clock"},
		},
		"expired": {
			&x509.Certificate{NotBefore: date(2020), NotAfter: date(2021)}, date(2025), []string{"valid until 2021-03-04", "at 2025-03-04", "renew"},
		},
		"no certificate": {nil, date(2025), []string{"refused", "clock"}},
	} {
		hint, err := notValidNow(x.cert, x.now, refused)
		text := fmt.Sprint(err, hint)
		for _, want := range x.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %s", name, text)
			}
		}
		if !errors.Is(err, refused) {
			t.Errorf("%s: the cause is lost", name)
		}
	}
}
