// A parent that starts its arguments, as a supervisor or a container's shim written in Go does.
package main

import (
	"log"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

func main() {
	// The child ends with the thread that started it.
	runtime.LockOSThread()
	command := exec.Command(os.Args[1], os.Args[2:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	log.Fatal(command.Run())
}
