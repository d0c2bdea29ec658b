// Plugin answers a request, so that a test can see that a server runs it.
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
