//go:build !unix

package trust

// RefuseWritable returns nil: file modes do not describe access here.
func RefuseWritable(string) error { return nil }
