package registry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"regexp"
	"sort"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/reference"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// referrersRoot contains one file for each manifest that refers to another:
// REPOSITORY/SUBJECT/REFERRER, where both digests are hexadecimal. The content is the
// descriptor that the referrers API lists (distribution-spec 1.1).
const referrersRoot = "/referrers"

func (e *Embedded) recordReferrer(ctx context.Context, repo string, m *bundle.Manifest) error {
	if m.Subject == nil {
		return nil
	}
	d := m.Descriptor
	d.Platform, d.ArtifactType, d.Annotations = nil, m.ArtifactType, m.Annotations
	data, err := bundle.Encode(d)
	if err != nil {
		return err
	}
	return e.store.PutContent(ctx, path.Join(referrersRoot, repo, m.Subject.Digest.Hex(), d.Digest.Hex()), data)
}

var referrersPath = regexp.MustCompile(`^/v2/([a-z0-9._/-]+)/referrers/([^/]*)$`)

// referrers serves the one endpoint of the specification that distribution does not implement.
// All other requests go to next.
func referrers(store driver.StorageDriver, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		match := referrersPath.FindStringSubmatch(r.URL.Path)
		if match == nil || r.Method != http.MethodGet && r.Method != http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		if _, err := reference.WithName(match[1]); err != nil {
			http.Error(w, `{"errors":[{"code":"NAME_INVALID","message":"not a repository name"}]}`, http.StatusBadRequest)
			return
		}
		subject, err := bundle.ParseDigest(match[2])
		if err != nil {
			http.Error(w, `{"errors":[{"code":"DIGEST_INVALID","message":"only sha256 digests are supported"}]}`, http.StatusBadRequest)
			return
		}
		list, err := listReferrers(r.Context(), store, path.Join(referrersRoot, match[1], subject.Hex()), r.URL.Query().Get("artifactType"))
		if err != nil {
			http.Error(w, `{"errors":[{"code":"UNKNOWN","message":"the store could not be read"}]}`, http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", bundle.TypeOCIIndex)
		if r.URL.Query().Has("artifactType") {
			w.Header().Set("OCI-Filters-Applied", "artifactType")
		}
		_, _ = w.Write(list) // the client may be gone
	})
}

func listReferrers(ctx context.Context, store driver.StorageDriver, dir, artifactType string) ([]byte, error) {
	index := struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}{2, bundle.TypeOCIIndex, []json.RawMessage{}}
	files, err := store.List(ctx, dir)
	if err != nil && !errors.As(err, new(driver.PathNotFoundError)) {
		return nil, err
	}
	sort.Strings(files)
	for _, f := range files {
		data, err := store.GetContent(ctx, f)
		if errors.As(err, new(driver.PathNotFoundError)) {
			continue // it has just been collected
		}
		if err != nil {
			return nil, err
		}
		// Skip a descriptor that a power failure has damaged or that is being written.
		var d bundle.Descriptor
		if bundle.DecodeStrict(data, &d) != nil {
			continue
		}
		if artifactType == "" || d.ArtifactType == artifactType {
			index.Manifests = append(index.Manifests, data)
		}
	}
	return json.Marshal(index)
}
