// A Go server: its runtime makes system calls of its own. Arguments and answers are those of serving.h; every connection has
// a goroutine of its own.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func end(address net.Addr) string {
	tcp := address.(*net.TCPAddr)
	return fmt.Sprintf("[%q,%d]", tcp.IP.String(), tcp.Port)
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintf(os.Stderr, "usage: %s ADDRESS PORT CONNECTIONS\n", os.Args[0])
		os.Exit(2)
	}
	connections, err := strconv.Atoi(os.Args[3])
	check(err)
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Args[1], os.Args[2]))
	check(err)
	fmt.Println("listening")
	var all sync.WaitGroup
	for i := 0; i < connections; i++ {
		connection, err := listener.Accept()
		check(err)
		peer := end(connection.RemoteAddr())
		fmt.Printf("{\"accepted\":%s,\"peer\":%s,\"local\":%s}\n", peer, peer, end(connection.LocalAddr()))
		all.Add(1)
		go func() {
			defer all.Done()
			io.Copy(connection, connection)
			connection.Close()
		}()
	}
	all.Wait()
}
