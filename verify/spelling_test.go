package verify_test

import (
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"
)

type spelling struct {
	name  string
	bytes []byte
	good  bool
}

func readDER(t *testing.T, sig []byte) (r, s *big.Int) {
	t.Helper()
	var v struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(sig, &v); err != nil || len(rest) > 0 {
		t.Fatal(err)
	}
	return v.R, v.S
}

// signatureSpellings lists variants of the ECDSA signature (r, s), in a group of order n, that
// can be made without the key.
func signatureSpellings(r, s, n *big.Int) []spelling {
	der := func(r, s *big.Int) []byte {
		b, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			panic(err)
		}
		return b
	}
	// wrap encodes a SEQUENCE with the given encoding of its length.
	wrap := func(length, content []byte) []byte { return slices.Concat([]byte{0x30}, length, content) }
	number := func(x *big.Int, lead ...byte) []byte {
		b := x.Bytes()
		if b[0]&0x80 != 0 {
			b = append([]byte{0}, b...)
		}
		b = append(lead, b...)
		return append([]byte{0x02, byte(len(b))}, b...)
	}
	good := der(r, s)
	content := good[2:]
	zero, one := big.NewInt(0), big.NewInt(1)
	return []spelling{
		{"as it is", good, true},
		{"the other s", der(r, new(big.Int).Sub(n, s)), true},
		{"s and n more", der(r, new(big.Int).Add(s, n)), false},
		{"r and n more", der(new(big.Int).Add(r, n), s), false},
		{"a negative s", der(r, new(big.Int).Neg(s)), false},
		{"r is 0", der(zero, s), false},
		{"s is 0", der(r, zero), false},
		{"both are 0", der(zero, zero), false},
		{"both are 1", der(one, one), false},
		{"both are n", der(n, n), false},
		{"exchanged", der(s, r), false},
		{"a byte behind it", append(slices.Clone(good), 0), false},
		{"a byte behind s, inside", wrap([]byte{byte(len(content) + 1)}, append(slices.Clone(content), 0)), false},
		{"a long length", wrap([]byte{0x81, byte(len(content))}, content), false},
		{"an indefinite length", append(wrap([]byte{0x80}, content), 0, 0), false},
		{"a leading zero more", wrap([]byte{byte(len(content) + 1)}, append(number(r, 0), number(s)...)), false},
		{"raw, 64 bytes", append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), false},
		{"cut", good[:len(good)-1], false},
		{"empty", nil, false},
		{"zeros", make([]byte, 64), false},
	}
}
