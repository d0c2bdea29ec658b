package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Patience contains the time limits of requests. The zero value is right for real
// networks; tests use shorter times.
type Patience struct {
	Idle time.Duration // how long a connection may be silent; 0 means a minute
	// Pause is the wait before the second try; 0 means 300 ms. Each further wait is three
	// times as long. All waits are randomized by up to half.
	Pause      time.Duration
	RetryAfter time.Duration // the longest wait that a registry may ask for; 0 means five minutes
}

func (p Patience) idle() time.Duration       { return or(p.Idle, time.Minute) }
func (p Patience) pause() time.Duration      { return or(p.Pause, 300*time.Millisecond) }
func (p Patience) retryAfter() time.Duration { return or(p.RetryAfter, 5*time.Minute) }

// filing returns how long a registry may be silent after it received a blob of size bytes:
// some registries copy the blob internally before they answer.
func (p Patience) filing(size int64) time.Duration {
	return p.idle() + time.Duration(size/(10<<20))*time.Second
}

func or(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}

// bound limits a request for a small document to times * p.idle(), even if data keeps
// arriving slowly. The caller must pass the request's error through cause.
func (p Patience) bound(ctx context.Context, times time.Duration) (context.Context, context.CancelFunc) {
	limit := times * p.idle()
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: it was not done after %s", errSlow, limit))
}

// errSlow marks a peer that is silent or too slow.
var errSlow = errors.New("too slow")

// cause returns the error of a request that bound limits: the limit's own error if the
// limit ended the request, or else err.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); err != nil && errors.Is(c, errSlow) {
		return c
	}
	return err
}

// minBytes is the number of bytes that a connection must deliver within the allowed
// silence: about 70 bytes a second for a minute.
const minBytes = 4 << 10

// uploading marks the context of a request that has its own timeout for sending the body
// and receiving an answer.
type uploading struct{}

// watch sends a request and cancels it if no answer arrives in time, or if the body
// arrives too slowly.
func watch(next http.RoundTripper, req *http.Request, idle time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	if ctx.Value(uploading{}) == nil {
		limit := idle + 2*min(connectTimeout, idle) // time to connect: TCP and TLS
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

// watchedBody fails if too few bytes arrive in the idle time. Only time spent in Read
// counts, so a slow local disk does no harm.
type watchedBody struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // the request's context, which lives as long as the body
	cancel context.CancelCauseFunc
	timer  *time.Timer
	idle   time.Duration
	left   time.Duration // rest of idle
	got    int           // bytes since left was last reset to idle
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
	// After errSlow, report errSlow even for io.EOF: while the connection closes, a server
	// may still end a truncated body properly.
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
