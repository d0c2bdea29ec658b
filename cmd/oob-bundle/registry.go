package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/registry"
)

// serveFlags configure how the registry of this host is served.
type serveFlags struct {
	root, listen, cert, key, accounts string
	tls, insecure                     bool
	names                             []string
}

func registryCommand(u *ui) *cobra.Command {
	c := group("registry", "Serve and maintain the registry of this host")
	c.Example = "  oob-bundle registry serve"
	c.AddCommand(serveCommand(u), unitCommand(u), accountCommand(u), gcCommand(u))
	return c
}

func serveCommand(u *ui) *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve installed content to container engines, read-only",
		Long: `On a loopback address, the registry serves plain HTTP and requires no login. Any
other address requires TLS and accounts. --insecure removes these requirements: others
on the network can then pull without a login and, without TLS, read and change the
traffic.

--tls makes a certificate for this site once and keeps it below ROOT. Copy its ca.crt to
each client as /etc/docker/certs.d/HOST:PORT/ca.crt, or to the same place below
/etc/containers/certs.d. The private key of the authority that signed the certificate is
not kept.`,
		Example: `  oob-bundle registry serve
  oob-bundle registry account puller
  oob-bundle registry serve --listen 0.0.0.0:5000 --tls --name registry.site \
    --accounts /var/lib/oob-bundle/accounts`,
		Args: none,
		RunE: func(c *cobra.Command, _ []string) error { return u.serve(c.Context(), f) },
	}
	f.add(c)
	return c
}

func (f *serveFlags) add(c *cobra.Command) {
	rootFlag(c, &f.root)
	c.Flags().StringVar(&f.listen, "listen", registry.DefaultListen, "listen on the address and port `HOST:PORT`")
	c.Flags().BoolVar(&f.tls, "tls", false, "serve TLS with a certificate made on this site")
	c.Flags().StringArrayVar(
		&f.names,
		"name",
		nil,
		"host `NAME` or address in the certificate that --tls makes; may be repeated (default this host's name and the address "+
			"of --listen)",
	)
	c.Flags().StringVar(&f.cert, "tls-cert", "", "serve TLS with the certificate in `FILE` (PEM, with its chain)")
	c.Flags().StringVar(&f.key, "tls-key", "", "`FILE` with the private key of --tls-cert (PEM)")
	c.Flags().StringVar(
		&f.accounts,
		"accounts",
		"",
		"`FILE` with the accounts that may pull, written by oob-bundle registry account or htpasswd -B",
	)
	c.Flags().BoolVar(&f.insecure, "insecure", false, "allow other addresses than loopback without TLS or accounts")
}

func unitCommand(u *ui) *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "unit",
		Short: "Print a systemd unit that serves the registry",
		Long:  "The unit runs oob-bundle registry serve with the flags that you give to this command.",
		Example: `  oob-bundle registry unit >/etc/systemd/system/oob-bundle-registry.service
  systemctl daemon-reload
  systemctl enable --now oob-bundle-registry`,
		Args: none,
		RunE: func(c *cobra.Command, _ []string) error {
			program, err := os.Executable()
			if err != nil {
				return err
			}
			return u.unit(c, program, f)
		},
	}
	f.add(c)
	return c
}

// unit prints a systemd service that runs program with the flags that were given.
func (u *ui) unit(c *cobra.Command, program string, f serveFlags) error {
	if _, err := f.check(); err != nil {
		return err
	}
	root, err := filepath.Abs(f.root)
	if err != nil {
		return err
	}
	for _, p := range []*string{&f.accounts, &f.cert, &f.key} { // systemd runs a unit in /
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	absolute := map[string]string{"accounts": f.accounts, "tls-cert": f.cert, "tls-key": f.key}
	words := []string{program, "registry", "serve", "--root", root}
	c.Flags().Visit(func(flag *pflag.Flag) {
		switch values, ok := flag.Value.(pflag.SliceValue); {
		case flag.Name == "root":
		case ok:
			for _, v := range values.GetSlice() {
				words = append(words, "--"+flag.Name, v)
			}
		case flag.Value.Type() == "bool":
			if flag.Value.String() == "true" {
				words = append(words, "--"+flag.Name)
			}
		case absolute[flag.Name] != "":
			words = append(words, "--"+flag.Name, absolute[flag.Name])
		default:
			words = append(words, "--"+flag.Name, flag.Value.String())
		}
	})
	for i, w := range words {
		quote := host.UnitArgument
		if i == 0 { // the path of the program
			quote = host.UnitWord
		}
		if words[i], err = quote(w); err != nil {
			return wrongUsage("%q cannot be part of a unit: %v", w, err)
		}
	}
	writable, err := host.UnitWord(root)
	if err != nil {
		return wrongUsage("--root %q cannot be part of a unit: %v", root, err)
	}
	_, err = fmt.Fprintf(u.out, `[Unit]
Description=Registry of this site, read-only
After=network.target

[Service]
ExecStart=%s
Restart=always
RestartSec=5
NoNewPrivileges=true
ProtectSystem=strict
ReadWritePaths=%s
ProtectHome=read-only
PrivateTmp=true

[Install]
WantedBy=multi-user.target
`, strings.Join(words, " "), writable)
	return err
}

// check returns the host of --listen. It refuses invalid and unsafe combinations of flags.
func (f *serveFlags) check() (host string, err error) {
	host, _, err = net.SplitHostPort(f.listen)
	if err != nil {
		return "", wrongUsage("--listen %q is not HOST:PORT", f.listen)
	}
	ownCert := f.cert != "" || f.key != ""
	switch {
	case ownCert && (f.cert == "" || f.key == "" || f.tls):
		return "", wrongUsage("give --tls-cert and --tls-key for a certificate of your own, or --tls for one made here")
	case len(f.names) > 0 && !f.tls:
		return "", wrongUsage("--name is for the certificate that --tls makes")
	}
	for _, name := range f.names {
		if err := bundle.CheckValue("host", strings.TrimPrefix(name, "*.")); err != nil {
			return "", wrongUsage("--name: %v", err)
		}
	}
	if ip := net.ParseIP(
		host,
	); !f.insecure && host != "localhost" && (ip == nil || !ip.IsLoopback()) &&
		(!f.tls && !ownCert || f.accounts == "") {
		return "", wrongUsage(
			"%s is not a loopback address; use --tls and --accounts there, or say with --insecure that everybody may see and change what is pulled",
			f.listen,
		)
	}
	return host, nil
}

func (u *ui) serve(ctx context.Context, f serveFlags) error {
	host, err := f.check()
	if err != nil {
		return err
	}
	h, err := registry.NewHandler(ctx, f.root)
	if err != nil {
		return err
	}
	if f.accounts != "" {
		a, err := registry.ReadAccounts(f.accounts)
		if err != nil {
			return err
		}
		h = a.Protect(h)
	}
	cert, err := u.certificate(f, host)
	if err != nil {
		return err
	}
	network := "tcp"
	if h, _, err := net.SplitHostPort(f.listen); err == nil {
		if ip := net.ParseIP(h); ip != nil && ip.To4() != nil { // 0.0.0.0 must not include ::
			network = "tcp4"
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, f.listen)
	if err != nil {
		return fmt.Errorf("%w; choose another address with --listen", err)
	}
	scheme := "http"
	if cert != nil {
		if problem := registry.DateProblem(cert.Leaf, time.Now()); problem != "" {
			u.warn("clients will refuse this registry: %s", problem)
		}
		scheme = "https"
		l = tls.NewListener(
			l,
			&tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		)
	}
	u.note("Serving %s on %s://%s, read-only; end it with Ctrl-C", registry.Dir(f.root), scheme, l.Addr())
	u.needsTime(registry.Grace + patience)
	return registry.Serve(ctx, l, h)
}

// certificate returns the certificate to serve with, or nil for plain HTTP.
func (u *ui) certificate(f serveFlags, host string) (*tls.Certificate, error) {
	if f.cert != "" {
		c, err := registry.LoadCertificate(f.cert, f.key)
		return &c, err
	}
	if !f.tls {
		return nil, nil
	}
	names := f.names
	if len(names) == 0 {
		if own, err := os.Hostname(); err == nil && own != "" {
			names = append(names, own)
		}
		if ip := net.ParseIP(host); ip == nil && host != "" || ip != nil && !ip.IsUnspecified() {
			names = append(names, host)
		}
	}
	c, made, err := registry.LoadOrMake(f.root, names)
	if made {
		u.note("Made a certificate for %s; clients need %s", strings.Join(names, ", "), registry.CertificateOf(f.root).CA)
	}
	return &c, err
}

func accountCommand(u *ui) *cobra.Command {
	var root string
	var remove bool
	c := &cobra.Command{
		Use:   "account NAME",
		Short: "Set the password of an account that may pull",
		Long: `The command stores accounts in the file ROOT/accounts. It asks for the password, or takes
the password from OOB_BUNDLE_ACCOUNT_PASSWORD.`,
		Example: "  oob-bundle registry account puller",
		Args:    needs("NAME"),
		RunE:    func(c *cobra.Command, args []string) error { return u.account(c.Context(), root, args[0], remove) },
	}
	rootFlag(c, &root)
	c.Flags().BoolVar(&remove, "remove", false, "remove the account")
	return c
}

func (u *ui) account(ctx context.Context, root, name string, remove bool) (err error) {
	var password []byte
	if !remove {
		if password, err = u.secret(ctx, "Password of "+name+": ", []string{accountPassword}, true); err != nil {
			return err
		}
		if len(password) == 0 {
			return wrongUsage("an account has a password; --remove removes it")
		}
	}
	lock, err := install.Acquire(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	path := filepath.Join(root, "accounts")
	had, err := registry.SetAccount(path, name, password)
	switch {
	case err != nil:
		return err
	case remove && !had:
		u.note("There is no account %s in %s; nothing was changed", name, path)
		return nil
	case remove:
		u.note("Removed %s; a registry that is served refuses it from now on", name)
		return nil
	}
	u.note("Set the password of %s; use it with oob-bundle registry serve --accounts %s", name, path)
	return nil
}
