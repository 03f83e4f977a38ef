// An echo server in Go: listens on a free port of 127.0.0.1, says which on stdout, and ends behind its first connection.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

func main() {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	connection, err := listener.Accept()
	if err != nil {
		os.Exit(1)
	}
	io.Copy(connection, connection)
	connection.Close()
}
