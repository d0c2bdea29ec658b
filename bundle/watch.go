package bundle

// Watch receives the progress of the payload. Every function may be nil. They are called from
// several goroutines.
type Watch struct {
	Begin func(m Member)
	// Bytes receives the number of bytes of each completed step. It is negative if bytes must
	// be moved again.
	Bytes func(n int64)
	End   func(m Member)
}

// Begun reports that work on a blob starts. The caller must call end when the work ends.
func (w Watch) Begun(m Member) (end func()) {
	if w.Begin != nil {
		w.Begin(m)
	}
	return func() {
		if w.End != nil {
			w.End(m)
		}
	}
}

// Add reports n completed bytes.
func (w Watch) Add(n int64) {
	if w.Bytes != nil {
		w.Bytes(n)
	}
}
