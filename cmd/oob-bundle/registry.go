package main

import (
	"context"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/oob-bundle/oob-bundle/install/registry"
)

func registryCommand(u *ui) *cobra.Command {
	c := group("registry", "The registry of this host")
	var root, listen string
	var insecure bool
	serve := &cobra.Command{
		Use:   "serve",
		Short: "Offer what is installed to container engines, read-only",
		Long: `Offer what is installed to container engines, read-only. It speaks plain http:
to this host only, unless --insecure says that the network may see and change it.`,
		Example: "  oob-bundle registry serve --listen 127.0.0.1:5000",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return u.serve(c.Context(), root, listen, insecure) },
	}
	rootFlag(serve, &root)
	serve.Flags().StringVar(&listen, "listen", registry.DefaultListen, "address and port")
	serve.Flags().BoolVar(&insecure, "insecure", false, "listen on other addresses than loopback although it is plain http")
	c.AddCommand(serve)
	return c
}

func (u *ui) serve(ctx context.Context, root, listen string, insecure bool) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("%w: --listen %q is not HOST:PORT", errUsage, listen)
	}
	if ip := net.ParseIP(host); !insecure && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%w: %s is not a loopback address, and this registry speaks plain http; --insecure allows it all the same", errUsage, listen)
	}
	h, err := registry.NewHandler(ctx, root)
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("%w; choose another address with --listen", err)
	}
	u.note("Serving %s on http://%s, read-only; end it with Ctrl-C", registry.Dir(root), l.Addr())
	return registry.Serve(ctx, l, h)
}
