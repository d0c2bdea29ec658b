package network

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle/remote"
)

const limitText = "You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: " +
	"https://www.docker.com/increase-rate-limit"

func loginFaults() []Fault {
	// Revoke at hits far enough apart that each request under way has its new token before
	// that token is revoked too.
	revokes := func(h *Host, _ http.ResponseWriter, r *http.Request) bool {
		if IsWork(r) && slices.Contains([]int64{4, 24}, h.Hits.Add(1)) {
			h.Revoke()
		}
		return false
	}
	echo := func(status int) func(*Host, http.ResponseWriter, *http.Request) {
		return func(_ *Host, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			fmt.Fprintf(w, "you sent %s\x1b[31m", r.Header.Get("Authorization"))
		}
	}
	nobody := []string{"$HOST", "401", "asked as nobody", "docker login $HOST"}
	somebody := []string{"$HOST", `user "canary-user" of Docker's configuration`, "docker login $HOST"}
	return []Fault{
		{Name: "401: no login", Class: remote.ErrRegistry, Says: nobody, Anonymous: true},
		{Name: "401: no login, passwords each time", Class: remote.ErrRegistry, Says: nobody, Anonymous: true, Basic: true},
		{Name: "401: wrong password", Class: remote.ErrRegistry, Says: append(somebody, "401", "incorrect username or password"), Wrong: true},
		{Name: "401: wrong password, passwords each time", Class: remote.ErrRegistry, Says: append(somebody, "401"), Wrong: true, Basic: true},
		{
			Name:  "401: a token that does not help",
			Class: remote.ErrRegistry,
			Says:  append(somebody, "401"),
			Mode: On(
				IsWork,
				Says(401, "UNAUTHORIZED", "authentication required", "WWW-Authenticate", `Bearer realm="https://registry.test/token"`),
			),
		},
		{Name: "401: without a challenge", Class: remote.ErrRegistry, Says: []string{"$HOST"}, Mode: On(IsAny, Answers(401, ""))},
		{
			Name:  "401: a challenge that nobody knows",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST"},
			Mode:  On(IsAny, Answers(401, "", "WWW-Authenticate", `Negotiate`)),
		},
		{
			Name:  "401: a challenge without a realm",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "realm"},
			Mode:  On(IsAny, Answers(401, "", "WWW-Authenticate", `Bearer service="x"`)),
		},
		{Name: "token: expires in the middle", Mode: revokes, After: met(4, 1000)},
		{
			Name:  "token: elsewhere",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "another host, " + ElsewhereName},
			Mode: On(IsAny, func(h *Host, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token"`, h.Elsewhere))
				w.WriteHeader(http.StatusUnauthorized)
			}),
		},
		{
			Name:  "token: from https to http",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "https"},
			Mode: On(IsAny, func(h *Host, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, h.Address))
				w.WriteHeader(http.StatusUnauthorized)
			}),
		},
		{
			Name:  "token: its place redirects elsewhere",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST"},
			Mode:  On(IsToken, Redirects(ToElsewhere)),
		},
		{
			Name:  "token: none in the answer",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "sends for a token"},
			Mode:  On(IsToken, Answers(200, `{"refresh_token":"canary-token-refresh"}`)),
		},
		{Name: "token: a web page", Class: remote.ErrRegistry, Says: []string{"$HOST", "sends for a token"}, Mode: WebPage(IsToken)},
		{Name: "token: without end", Class: remote.ErrRegistry, Says: []string{"$HOST"}, Mode: On(IsToken, endless)},
		{Name: "token: stalls", Class: remote.ErrRegistry, Says: []string{"$HOST", "too slow"}, Hurry: true, Mode: On(IsToken, Breaks(Stalls))},
		{Name: "403", Class: remote.ErrRegistry, Says: append(somebody, "403", "no access"), Mode: On(IsWork, Says(403, "DENIED", "no access"))},
		{Name: "403: it shows what it was sent", Class: remote.ErrRegistry, Says: somebody, Mode: On(IsWork, echo(403))},
		{
			Name:  "403: it shows what it was sent, passwords each time",
			Class: remote.ErrRegistry,
			Says:  somebody,
			Mode:  On(IsWork, echo(403)),
			Basic: true,
		},
		{
			Name:  "500: it shows what it was sent at the login",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "500"},
			Mode:  On(IsToken, echo(500)),
		},
	}
}

// met checks that the number of hits is from least to most.
func met(least, most int64) func(testing.TB, *Host) {
	return func(tb testing.TB, h *Host) {
		tb.Helper()
		if n := h.Hits.Load(); n < least || n > most {
			tb.Errorf("met %d times, not %d to %d", n, least, most)
		}
	}
}

func busyFaults() []Fault {
	date := func(in time.Duration) func(*Host, http.ResponseWriter, *http.Request) {
		return func(h *Host, w http.ResponseWriter, r *http.Request) {
			at := time.Now().Add(48 * time.Hour) // the registry's clock is wrong, in Date and Retry-After alike
			w.Header().Set("Date", at.UTC().Format(http.TimeFormat))
			Says(429, "TOOMANYREQUESTS", limitText, "Retry-After", at.Add(in).UTC().Format(http.TimeFormat))(h, w, r)
		}
	}
	wait := func(after string) Mode {
		return On(IsWork, Says(429, "TOOMANYREQUESTS", limitText, "Retry-After", after))
	}
	limit := []string{"$HOST", "429", limitText}
	list := []Fault{
		{Name: "429: for a moment, in seconds", Mode: Times(1, wait("1"))},
		{Name: "429: for a moment, as a date", Mode: Times(1, On(IsWork, date(time.Second)))},
		{
			Name:  "429: for ever, the text is shown",
			Class: remote.ErrRegistry,
			Says:  append(limit, "log in for a higher limit"),
			Mode:  wait(""),
			After: met(5, 5),
		},
		{Name: "429: for a day", Class: remote.ErrRegistry, Says: append(limit, "24h0m0s"), Mode: wait("86400"), After: met(1, 1)},
		{
			Name:  "429: for a day, as a date",
			Class: remote.ErrRegistry,
			Says:  append(limit, "24h0m0s"),
			Mode:  On(IsWork, date(24*time.Hour)),
			After: met(1, 1),
		},
		{
			Name:  "429: for longer than there is",
			Class: remote.ErrRegistry,
			Says:  append(limit, "too long to wait"),
			Mode:  wait("99999999999999999999999"),
			After: met(1, 1),
		},
		{
			Name:  "429: for a time that overflows",
			Class: remote.ErrRegistry,
			Says:  append(limit, "too long to wait"),
			Mode:  wait("18446744075"),
			After: met(1, 1),
		},
		{Name: "429: until yesterday", Mode: Times(1, On(IsWork, date(-24*time.Hour)))},
		{Name: "429: for -1, and for nothing that is a time", Mode: Times(2, func(h *Host, w http.ResponseWriter, r *http.Request) bool {
			return wait(map[bool]string{true: "-1", false: "soon"}[h.Hits.Load() == 0])(h, w, r)
		})},
		{Name: "429: at the login", Mode: Times(1, On(IsToken, Says(429, "TOOMANYREQUESTS", limitText, "Retry-After", "1")))},
		{
			Name:  "429: at the greeting, for a day",
			Class: remote.ErrRegistry,
			Says:  append(limit, "24h0m0s"),
			Mode:  On(IsPing, Says(429, "TOOMANYREQUESTS", limitText, "Retry-After", "86400")),
			After: met(1, 1),
		},
	}
	for _, code := range []int{500, 502, 503, 504} {
		status := On(IsWork, Answers(code, "bad day"))
		list = append(
			list,
			Fault{Name: fmt.Sprintf("%d: three times", code), Mode: Times(3, status), After: met(3, 3)},
			Fault{
				Name:  fmt.Sprintf("%d: for ever", code),
				Class: remote.ErrRegistry,
				Says:  []string{"$HOST", strconv.Itoa(code), "bad day"},
				Mode:  status,
				After: met(5, 5),
			},
		)
	}
	return append(
		list,
		Fault{
			Name:  "503: at the greeting",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "503"},
			Mode:  On(IsPing, Answers(503, "<html>down for maintenance</html>", "Content-Type", "text/html")),
		},
		Fault{Name: "408: once", Mode: Times(1, On(IsWork, Answers(408, "")))},
		Fault{
			Name:  "418: what nobody expects",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "418"},
			Mode:  On(IsWork, Answers(418, "short and stout")),
		},
		Fault{
			Name:  "500: with a body without end",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "500"},
			Mode: On(IsWork, func(h *Host, w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusInternalServerError)
				endless(h, w, r)
			}),
		},
		Fault{
			Name:  "500: with a body that stalls",
			Class: remote.ErrRegistry,
			Says:  []string{"$HOST", "500"},
			Hurry: true,
			Mode: On(IsWork, func(_ *Host, w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusInternalServerError)
				_ = http.NewResponseController(w).Flush()
				Stalls(w, r)
			}),
		},
	)
}
