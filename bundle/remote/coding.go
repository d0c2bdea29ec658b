package remote

import (
	"bufio"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Requests accept no content codings (RFC 9110, section 8.4). Some servers apply one
// nevertheless, or name a coding that is part of the file: Apache's AddEncoding labels
// every .tgz. The rules here are:
//
//   - A known digest selects the bytes as sent, or else the decoded ones.
//   - A file without a known digest is the bytes as sent, which curl would save.
//   - A document, such as an index or a signature, is decoded.

// codingError reports content in a coding that was not requested.
type codingError struct{ coding string }

func (e *codingError) Error() string {
	return fmt.Sprintf("it sent the content encoded as %q, which was not asked for", e.coding)
}

func (e *codingError) Unwrap() error { return errContent }

// codingOf returns the content coding of a response, or "".
func codingOf(res *http.Response) string {
	coding := strings.ToLower(strings.Join(res.Header.Values("Content-Encoding"), ", "))
	if strings.TrimSpace(coding) == "identity" {
		return ""
	}
	return coding
}

// maxDecoded bounds the bytes that whichHas decodes from a response.
const maxDecoded = 16 << 30

// errCoding marks a coding that cannot be decoded.
var errCoding = errors.New("unknown coding")

// maxCodings bounds the codings of one response. Three layers that each expand a
// thousandfold take hours to decode.
const maxCodings = 2

// maxZstdWindow bounds the window of a zstd decoder, in bytes (RFC 9659).
const maxZstdWindow = 8 << 20

// decoded returns the content of a response without its codings. The error wraps
// errContent, or is that of reading body.
func decoded(body io.Reader, coding string) (io.Reader, error) {
	if coding == "" {
		return body, nil
	}
	if strings.Count(coding, ",") >= maxCodings {
		return nil, &codingError{coding}
	}
	rest, last := "", coding
	if comma := strings.LastIndexByte(coding, ','); comma >= 0 {
		rest, last = coding[:comma], coding[comma+1:]
	}
	var plain io.Reader
	var err error
	switch strings.TrimSpace(last) {
	case "gzip", "x-gzip":
		plain, err = gzip.NewReader(body)
	case "deflate":
		plain, err = zlib.NewReader(body)
	case "zstd":
		plain, err = zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
	case "br", "compress", "x-compress", "dcb", "dcz":
		err = errCoding
	default: // not a coding: a charset, "none" or "aws-chunked" that a server sent by mistake
		plain = body
	}
	switch {
	case err == nil:
		return decoded(plain, strings.TrimSpace(rest))
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, zlib.ErrHeader), errors.Is(err, errCoding):
		return nil, &codingError{coding}
	}
	return nil, err
}

// document returns the decoded content of a response. Content that is labelled gzip but
// lacks the magic number of gzip is returned as sent.
func document(res *http.Response) (io.Reader, error) {
	coding := codingOf(res)
	body := bufio.NewReader(res.Body)
	magic, err := body.Peek(len(gzipMagic))
	if err == nil && strings.HasSuffix(coding, "gzip") && string(magic) != gzipMagic {
		return body, nil
	}
	return decoded(body, coding)
}

// gzipMagic is the start of all gzip data (RFC 1952, section 2.3.1).
const gzipMagic = "\x1f\x8b"

// Describe asks for the size of the page. If the response has a coding and digest is not
// empty, Describe reads the page to find out whether the bytes as sent or the decoded ones
// have that digest, and returns a descriptor with the digest. The error wraps
// ErrUnknownSize if the server does not state the size.
func (p *Page) Describe(ctx context.Context, digest bundle.Digest) (d bundle.Descriptor, err error) {
	coding := ""
	err = p.get(ctx, func(res *http.Response) error {
		coding = codingOf(res)
		d.Size = res.ContentLength
		if known := coding != "" && digest != ""; !known && d.Size < 0 {
			return fmt.Errorf("%w: %w", errContent, ErrUnknownSize)
		}
		return nil
	})
	if err != nil || coding == "" || digest == "" {
		return d, err
	}
	err = p.open(ctx, func(res *http.Response) error {
		d, err = whichHas(res, digest)
		return err
	})
	return d, err
}

// whichHas hashes a response as sent and decoded, and describes the form that has the
// digest.
func whichHas(res *http.Response, digest bundle.Digest) (d bundle.Descriptor, err error) {
	coding := codingOf(res)
	sent, plain := &counter{Hash: sha256.New()}, &counter{Hash: sha256.New()}
	body := io.TeeReader(res.Body, sent)
	content, undecodable := decoded(body, coding)
	if undecodable == nil {
		_, undecodable = io.Copy(plain, io.LimitReader(content, maxDecoded))
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		return d, err
	}
	switch {
	case bundle.DigestFrom(sent.Sum(nil)) == digest:
		return bundle.Descriptor{Digest: digest, Size: sent.size}, nil
	case undecodable == nil && bundle.DigestFrom(plain.Sum(nil)) == digest:
		return bundle.Descriptor{Digest: digest, Size: plain.size}, nil
	}
	return d, fmt.Errorf("%w; neither the bytes as sent nor the decoded ones have the digest %s", &codingError{coding}, digest)
}

// counter is a hash that counts the bytes written to it.
type counter struct {
	hash.Hash
	size int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.size += int64(len(p))
	return c.Hash.Write(p)
}

// fetchDecoded transfers the decoded page. After an interruption it starts again from the
// first byte.
func (p *Page) fetchDecoded(ctx context.Context, t *Transfer) error {
	return p.open(ctx, func(res *http.Response) error {
		t.restart()
		t.coding = codingOf(res)
		content, err := document(res)
		if err != nil {
			return err
		}
		for {
			n, err := content.Read(t.Buffer)
			if err := t.write(n); err != nil {
				return err
			}
			switch {
			case errors.Is(err, io.EOF):
				return t.finish()
			case err != nil:
				return err
			}
		}
	})
}
