// Command app is the server of the tests' images. It answers every request with VERSION, and
// /api/v4/system/ping with the status that PING has (200 without it). With
// arguments, such as "db migrate", it ends.
package main

import (
	"cmp"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Println(os.Args[1:], "done")
		return
	}
	if os.Getenv("FAIL") != "" {
		log.Fatal("this version does not start: ", os.Getenv("FAIL"))
	}
	ping, err := strconv.Atoi(cmp.Or(os.Getenv("PING"), "200"))
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/api/v4/system/ping", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(ping) })
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getenv("VERSION")) })
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() { <-stop; os.Exit(0) }()
	log.Fatal(http.ListenAndServe(cmp.Or(os.Getenv("LISTEN"), ":8065"), nil))
}
