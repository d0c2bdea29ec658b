package seeds

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"
)

func TestGzip(t *testing.T) {
	for _, n := range []int{0, 1, 65535, 65536, 200_000} {
		want := bytes.Repeat([]byte("abcde"), n/5+1)[:n]
		r, err := gzip.NewReader(bytes.NewReader(Gzip(want)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes became %d, %v", n, len(got), err)
		}
	}
}
