package bundle

// Watch is told how payload moves. Every function may be nil, and is called
// from several goroutines.
type Watch struct {
	Begin func(m Member)
	// Bytes gets each number of bytes that are done; it is negative where bytes
	// have to be moved again.
	Bytes func(n int64)
	End   func(m Member)
}

// Begun says that work on a blob begins; the result is to be called at its end.
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

// Add counts bytes.
func (w Watch) Add(n int64) {
	if w.Bytes != nil {
		w.Bytes(n)
	}
}
