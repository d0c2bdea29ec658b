//go:build linux

package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// The floors: the least that any program has to do for the job, without names, signatures,
// format checks, or a way to resume after an interruption.

// blobAt is a blob, its URL, and its offset in a file.
type blobAt struct {
	URL    string `json:"url"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	Offset int64  `json:"offset"`
}

const (
	floorBuffer = 256 << 10
	floorJobs   = 8
)

func readPlan(path string) ([]blobAt, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []blobAt
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b blobAt) int { return cmp.Compare(b.Size, a.Size) })
	return list, nil
}

// each calls do for every blob, jobs at a time. Each job has its own buffer.
func each(list []blobAt, jobs int, do func(b blobAt, buf []byte) error) error {
	var g errgroup.Group
	var next atomic.Int64
	for range jobs {
		g.Go(func() error {
			buf := make([]byte, floorBuffer)
			for i := next.Add(1) - 1; i < int64(len(list)); i = next.Add(1) - 1 {
				if err := do(list[i], buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// pour hashes r and writes it to w at the blob's offset. It only hashes if w is nil.
func pour(b blobAt, r io.Reader, w io.WriterAt, buf []byte) error {
	h := sha256.New()
	off := b.Offset
	for {
		n, err := r.Read(buf)
		if w != nil {
			if _, err := w.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		h.Write(buf[:n])
		off += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if got := fmt.Sprintf("sha256:%x", h.Sum(nil)); got != b.Digest {
		return fmt.Errorf("%s: got %s", b.Digest, got)
	}
	return nil
}

// floorPull fetches all blobs in parallel, hashes them, and writes each at its offset into one
// file. It syncs the file.
func floorPull(plan, to string) error {
	list, err := readPlan(plan)
	if err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: floorJobs, DisableCompression: true, ReadBufferSize: 64 << 10}}
	err = each(list, floorJobs, func(b blobAt, buf []byte) error {
		req, err := http.NewRequest(http.MethodGet, b.URL, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", bundle.TypeOCIManifest) // distribution requires it
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", b.URL, res.Status)
		}
		return errors.Join(pour(b, res.Body, f, buf), res.Body.Close())
	})
	return errors.Join(err, f.Sync(), f.Close())
}

// floorVerify hashes every blob of a file on all processors.
func floorVerify(plan, from string) error {
	list, err := readPlan(plan)
	if err != nil {
		return err
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	err = each(list, runtime.GOMAXPROCS(0), func(b blobAt, buf []byte) error {
		return pour(b, io.NewSectionReader(f, b.Offset, b.Size), nil, buf)
	})
	return errors.Join(err, f.Close())
}

// floorCopy reads every blob of a file, hashes it, and writes it into another file. It syncs
// the new file.
func floorCopy(plan, from, to string) error {
	list, err := readPlan(plan)
	if err != nil {
		return err
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	err = each(list, 4, func(b blobAt, buf []byte) error {
		return pour(b, io.NewSectionReader(f, b.Offset, b.Size), w, buf)
	})
	return errors.Join(err, f.Close(), w.Sync(), w.Close())
}
