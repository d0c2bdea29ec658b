package remote

import (
	"errors"
	"net/http"
	"slices"
)

// Unsupported reports whether err is the registry's refusal of a media type (415).
func Unsupported(err error) bool {
	var status *statusError
	return errors.As(err, &status) && status.code == http.StatusUnsupportedMediaType
}

// Refused reports whether err is the registry's refusal of a manifest (400, 404 or 422),
// for example of an index whose children it lacks.
func Refused(err error) bool {
	var status *statusError
	return errors.As(err, &status) &&
		(status.code == http.StatusBadRequest || status.code == http.StatusNotFound || status.code == http.StatusUnprocessableEntity)
}

// Missing reports whether err means that the registry lacks content that a pushed manifest
// names, even if it reported that content as present before.
func Missing(err error) bool {
	var status *statusError
	return errors.As(err, &status) && slices.Contains([]string{"BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN"}, status.reason)
}

// Immutable reports whether the registry refused a tag and would refuse it again.
// Registries use different statuses for a tag that must not move (400 ECR, 403 and 405
// ACR, 409 Quay, 412 Harbor).
func Immutable(err error) bool {
	var status *statusError
	if !errors.As(err, &status) || Missing(err) {
		return false
	}
	switch status.code {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return status.code >= 400 && status.code < 500
}

// Denied reports whether the registry denied the account access (401 or 403).
func Denied(err error) bool {
	var status *statusError
	return errors.As(err, &status) && (status.code == http.StatusUnauthorized || status.code == http.StatusForbidden)
}
