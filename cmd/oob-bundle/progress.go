package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/oob-bundle/oob-bundle/bundle"
)

const (
	lineEvery  = 5 * time.Second // on a pipe
	eventEvery = time.Second     // with --json
	barWidth   = 26              // columns
	rateWindow = 5 * time.Second // for the transfer rate
)

// progress reports the progress of the payload on stderr: a bar on a terminal, lines on a pipe,
// events with --json, nothing with --quiet.
type progress struct {
	u     *ui
	doing string // one word, for events: fetch, verify, store, repair
	total int64
	name  func(bundle.Member) string

	mu      sync.Mutex
	done    int64
	samples []sample // of the latest rateWindow
	active  []bundle.Member

	stopped chan struct{}
	ended   sync.WaitGroup
}

type sample struct {
	at   time.Time
	done int64
}

// progress starts to report the progress of the payload of g. The caller must call stop.
func (u *ui) progress(doing string, g *bundle.Geometry) *progress {
	liftMemoryLimit()
	p := &progress{u: u, doing: doing, total: g.PayloadSize(), stopped: make(chan struct{}), samples: []sample{{time.Now(), 0}}}
	p.name = func(m bundle.Member) string {
		d := g.Index.Manifests[m.Root]
		switch {
		case d.Annotations[bundle.AnnotationRef] != "":
			return path.Base(d.Annotations[bundle.AnnotationRef])
		case d.ArtifactType == bundle.TypePlugin:
			return "a plugin"
		case d.ArtifactType == bundle.TypeFile:
			return "a file"
		}
		return "what speaks of an image"
	}
	switch {
	case u.quiet:
	case u.json:
		p.every(eventEvery, p.event)
	case isTerminal(u.err):
		p.bar()
	default:
		p.every(lineEvery, func() { u.note("%s", p.line(0)) })
	}
	return p
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

// watch returns the callbacks that update p.
func (p *progress) watch() bundle.Watch {
	return bundle.Watch{
		Begin: func(m bundle.Member) {
			p.mu.Lock()
			p.active = append(p.active, m)
			p.mu.Unlock()
		},
		Bytes: func(n int64) {
			p.mu.Lock()
			p.done += n
			p.mu.Unlock()
		},
		End: func(m bundle.Member) {
			p.mu.Lock()
			p.active = slices.DeleteFunc(p.active, func(o bundle.Member) bool { return o.Digest == m.Digest })
			p.mu.Unlock()
		},
	}
}

// stop ends the reports. The caller must call it once, after success and after failure.
func (p *progress) stop() {
	close(p.stopped)
	p.ended.Wait()
}

// every starts to call tell at an interval of d. At the end, it calls tell once more if tell
// was called before, or with --json.
func (p *progress) every(d time.Duration, tell func()) {
	p.ended.Go(func() {
		tick := time.NewTicker(d)
		defer tick.Stop()
		told := p.u.json // with --json, send at least one event
		for {
			select {
			case <-tick.C:
				tell()
				told = true
			case <-p.stopped:
				if told {
					tell()
				}
				return
			}
		}
	})
}

// now takes a sample and returns the bytes done, the rate in bytes a second, and the names of
// the active items.
func (p *progress) now() (done, rate int64, names []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.samples = append(p.samples, sample{now, p.done})
	for len(p.samples) > 2 && now.Sub(p.samples[0].at) > rateWindow {
		p.samples = p.samples[1:]
	}
	first := p.samples[0]
	if d := now.Sub(first.at).Seconds(); d > 0 {
		rate = int64(float64(p.done-first.done) / d)
	}
	for _, m := range p.active {
		if n := p.name(m); n != "." && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return p.done, rate, names
}

// left returns the estimated seconds until the end, or -1 if the rate is 0.
func (p *progress) left(done, rate int64) int64 {
	if rate <= 0 {
		return -1
	}
	return (p.total - done + rate - 1) / rate
}

// line returns the progress as text, with as many names as fit into width columns. With width 0
// it has no names.
func (p *progress) line(width int) string {
	done, rate, names := p.now()
	percent := int64(100)
	if p.total > 0 {
		percent = done * 100 / p.total
	}
	s := fmt.Sprintf("%s of %s  %d %%  %s/s", human(done), human(p.total), percent, human(rate))
	if left := p.left(done, rate); left >= 0 {
		s += fmt.Sprintf("  %s left", time.Duration(left)*time.Second)
	}
	for _, n := range names {
		if len(s)+2+len(n) >= width {
			break
		}
		s += "  " + n
	}
	return s
}

// event writes a progress event.
func (p *progress) event() {
	done, rate, names := p.now()
	p.u.event(struct {
		Event   string   `json:"event"` // "progress"
		Doing   string   `json:"doing"`
		Done    int64    `json:"done"`    // bytes
		Total   int64    `json:"total"`   // bytes
		Rate    int64    `json:"rate"`    // bytes a second
		Seconds int64    `json:"seconds"` // left; -1 if unknown
		Active  []string `json:"active"`  // images, plugins and files in transfer
	}{"progress", p.doing, done, p.total, rate, p.left(done, rate), append([]string{}, names...)})
}

// event writes v as one line of JSON to stderr.
func (u *ui) event(v any) {
	line, err := json.Marshal(v)
	if err == nil {
		fmt.Fprintf(u.err, "%s\n", line)
	}
}

// bar draws a progress bar until stop is called. Other output to u.err appears above the bar.
func (p *progress) bar() {
	out := p.u.err
	draw := mpb.New(mpb.WithOutput(out), mpb.WithWidth(barWidth), mpb.WithRefreshRate(200*time.Millisecond))
	style := mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]")
	bar := draw.New(p.total, style, mpb.BarRemoveOnComplete(), mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string {
		return strings.TrimRight(p.line(s.AvailableWidth-barWidth-2), " ")
	})))
	p.u.err = draw
	p.ended.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for running := true; running; {
			select {
			case <-tick.C:
			case <-p.stopped:
				running = false
			}
			p.mu.Lock()
			done := p.done
			p.mu.Unlock()
			bar.SetCurrent(min(done, p.total-1))
		}
		bar.Abort(true)
		draw.Wait()
		p.u.err = out
	})
}
