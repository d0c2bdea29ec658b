package create_test

import (
	"io"
	"net/http"
	"sync/atomic"
)

// proxy forwards requests to another host, over HTTP.
type proxy struct{ host string }

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+p.host+r.URL.RequestURI(), r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	req.Header = r.Header.Clone()
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	for k, v := range res.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(res.StatusCode)
	_, _ = io.Copy(w, res.Body)
}

// dropping ends the connection after left bytes of a body.
type dropping struct {
	http.ResponseWriter
	left int64
	sent *atomic.Int64
}

func (d *dropping) Write(p []byte) (int, error) {
	if d.left == 0 {
		panic(http.ErrAbortHandler)
	}
	p = p[:min(int64(len(p)), d.left)]
	n, err := d.ResponseWriter.Write(p)
	d.left -= int64(n)
	d.sent.Add(int64(n))
	if d.left == 0 {
		if f, ok := d.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		panic(http.ErrAbortHandler)
	}
	return n, err
}
