package create_test

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
)

// proxy passes requests to another host, over http.
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

// dropping ends the connection after some bytes of a body.
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

// tokens is a registry that hands out bearer tokens to one user and forgets them
// after some requests.
type tokens struct {
	next   http.Handler
	issued atomic.Int64
	used   atomic.Int64
}

func (k *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "canary-secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"token":"t%d"}`, k.issued.Add(1))
		return
	}
	current := fmt.Sprintf("Bearer t%d", k.issued.Load())
	if r.Header.Get("Authorization") != current || k.used.Add(1)%3 == 0 {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s",scope="repository:team/app:pull"`, r.Host))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	k.next.ServeHTTP(w, r)
}
