package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Patience says how long is waited. The zero value is right for real networks;
// tests are in a hurry.
type Patience struct {
	Idle       time.Duration // how long a connection may be silent; 0 means a minute
	Pause      time.Duration // before the second of several tries, three times as long before each further one; 0 means 300 ms
	RetryAfter time.Duration // the longest wait that a registry may ask for; 0 means five minutes
}

func (p Patience) idle() time.Duration       { return or(p.Idle, time.Minute) }
func (p Patience) pause() time.Duration      { return or(p.Pause, 300*time.Millisecond) }
func (p Patience) retryAfter() time.Duration { return or(p.RetryAfter, 5*time.Minute) }

// filing is how long a registry may be silent when it has all of a blob of so many
// bytes: some copy it once more, from one place of theirs to another, before they answer.
func (p Patience) filing(size int64) time.Duration {
	return p.idle() + time.Duration(size/(10<<20))*time.Second
}

func or(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}

// bound ends a request for something small after some times the silence that is
// allowed, however little by little it comes. The error is got with cause.
func (p Patience) bound(ctx context.Context, times time.Duration) (context.Context, context.CancelFunc) {
	limit := times * p.idle()
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: it was not done after %s", errSlow, limit))
}

// errSlow says that a peer is silent, or next to it.
var errSlow = errors.New("too slow")

// cause returns what ended a request that bound limits: err, unless that only
// follows from the limit.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); err != nil && errors.Is(c, errSlow) {
		return c
	}
	return err
}

// minBytes is what a connection has to bring in the time in which it may be
// silent, in bytes: 70 a second, which is less than a modem of 1985.
const minBytes = 4 << 10

// uploading marks the context of a request that sees to it itself that it is taken
// and answered.
type uploading struct{}

// watch sends a request and sees to it that an answer comes, and then its body.
func watch(next http.RoundTripper, req *http.Request, idle time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	if ctx.Value(uploading{}) == nil {
		limit := idle + 2*min(connectTimeout, idle) // which a connection may take before
		silence := time.AfterFunc(limit, func() { cancel(fmt.Errorf("%w: it did not answer for %s", errSlow, limit)) })
		defer silence.Stop()
	}
	res, err := next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		err = cause(ctx, err)
		cancel(nil)
		return nil, err
	}
	b := &watchedBody{ReadCloser: res.Body, ctx: ctx, cancel: cancel, idle: idle, left: idle}
	b.timer = time.AfterFunc(idle, func() { cancel(errSlow) })
	b.timer.Stop()
	res.Body = b
	return res, nil
}

// watchedBody gives up when too little comes. Only the time in which somebody
// waits for the peer counts, not that in which our own disk is slow.
type watchedBody struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // it is the request's, which lives as long as the body
	cancel context.CancelCauseFunc
	timer  *time.Timer
	idle   time.Duration
	left   time.Duration // of idle
	got    int           // bytes since left was all of idle
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.left)
	begun := time.Now()
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	b.left = max(b.left-time.Since(begun), time.Millisecond)
	if b.got += n; b.got >= minBytes {
		b.got, b.left = 0, b.idle
	}
	// An end that comes after we gave up is ours, not the peer's: while the connection
	// closes a server may still finish a body that is cut short.
	if err != nil && errors.Is(context.Cause(b.ctx), errSlow) {
		return n, fmt.Errorf("%w: %d bytes came in %s", errSlow, b.got, b.idle)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
