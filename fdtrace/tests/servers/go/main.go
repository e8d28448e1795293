// A plain net/http server, as the one in the story that fdtrace was written for.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	// net/http logs its "Accept error" lines here, with a time that a test can compare.
	logger := log.New(os.Stderr, "", log.LstdFlags|log.Lmicroseconds|log.LUTC)
	// supervisord puts its children into process groups of their own: whatever happens to the
	// test, this must not stay.
	time.AfterFunc(2*time.Minute, func() { logger.Fatal("nobody stopped me") })
	handler := func(answer http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/" {
			logger.Printf("asked for %s", request.URL.Path)
		}
		fmt.Fprintln(answer, "ok")
	}
	server := http.Server{
		Addr:     ":" + os.Args[1],
		Handler:  http.HandlerFunc(handler),
		ErrorLog: logger,
	}
	logger.Fatal(server.ListenAndServe())
}
