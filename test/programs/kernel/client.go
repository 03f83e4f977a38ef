// A Go client: its runtime makes system calls of its own, linked statically or (with cgo) dynamically. Arguments and
// answer are those of exchange.h; every connection has a goroutine of its own.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

func number(at int) int64 {
	if at >= len(os.Args) {
		return 0
	}
	value, err := strconv.ParseInt(os.Args[at], 10, 64)
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintf(os.Stderr, "usage: %s PORT CONNECTIONS UP DOWN [LINGER_MS]\n", os.Args[0])
		os.Exit(2)
	}
	connections, up, down := number(2), number(3), number(4)
	var sent, received int64
	var all sync.WaitGroup
	for i := int64(0); i < connections; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			connection, err := net.Dial("tcp", "127.0.0.1:"+os.Args[1])
			check(err)
			n, err := connection.Write(make([]byte, up))
			atomic.AddInt64(&sent, int64(n))
			check(err)
			n, err = io.ReadFull(connection, make([]byte, down))
			atomic.AddInt64(&received, int64(n))
			check(err)
			time.Sleep(time.Duration(number(5)) * time.Millisecond)
			connection.Close()
		}()
	}
	all.Wait()
	fmt.Printf("{\"way\":\"go\",\"pid\":%d,\"flows\":%d,\"up\":%d,\"down\":%d}\n", os.Getpid(), connections, sent, received)
}
