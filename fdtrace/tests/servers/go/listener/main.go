// A server that is still busy with something else: it listens, and accepts nobody.
package main

import (
	"log"
	"net"
	"os"
	"time"
)

func main() {
	listener, err := net.Listen("tcp4", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	// Whatever happens to the test, this must not stay.
	time.Sleep(2 * time.Minute)
	listener.Close()
}
