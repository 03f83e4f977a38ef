// An echo server in Go: listens on a free port of 127.0.0.1, says which on stdout, and ends with its standard input.
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
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		connection, err := listener.Accept()
		if err != nil {
			os.Exit(1)
		}
		go func() {
			io.Copy(connection, connection)
			connection.Close()
		}()
	}
}
