// Plugin answers a request, so that a test can check that the server runs the plugin.
package main

import (
	"fmt"
	"net/http"

	"github.com/mattermost/mattermost/server/public/plugin"
)

type carried struct {
	plugin.MattermostPlugin
}

func (*carried) ServeHTTP(_ *plugin.Context, w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, "carried across")
}

func main() { plugin.ClientMain(&carried{}) }
