// A Go client of datagrams, linked statically. `datagrams PORT COUNT` does what datagrams.c does, on a connected socket;
// `datagrams NAME…` looks names up by Go's own resolver, and prints what came of each.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

func exchange(port string, count int) {
	end, err := net.Dial("udp", "127.0.0.1:"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	start, answered := time.Now(), 0
	for i := 0; i < count; i++ {
		text, back := strconv.Itoa(i), make([]byte, 16)
		end.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := end.Write([]byte(text)); err != nil {
			continue
		}
		n, err := end.Read(back)
		if err == nil && string(back[:n]) == text && end.RemoteAddr().String() == "127.0.0.1:"+port {
			answered++
		}
	}
	fmt.Printf("{\"answered\":%d,\"ms\":%.1f}\n", answered, float64(time.Since(start).Microseconds())/1000)
}

func main() {
	if _, err := strconv.Atoi(os.Args[1]); err == nil {
		count, _ := strconv.Atoi(os.Args[2])
		exchange(os.Args[1], count)
		return
	}
	for _, name := range os.Args[1:] {
		start := time.Now()
		addresses, err := net.LookupHost(name)
		found := "found"
		if failure, ok := err.(*net.DNSError); ok {
			found = "failed"
			if failure.IsNotFound {
				found = "not found"
			}
		}
		fmt.Printf("{\"name\":\"%s\",\"found\":\"%s\",\"addresses\":%d,\"ms\":%.1f}\n", name, found, len(addresses), float64(time.Since(start).Microseconds())/1000)
	}
}
