// A Go client that goes on and on: connects to 127.0.0.1:PORT, exchanges five bytes with an echo server, says how many
// milliseconds both took or the error, closes, and does so again, until it is killed.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

func exchange() error {
	connection, err := net.DialTimeout("tcp", "127.0.0.1:"+os.Args[1], 10*time.Second)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err = connection.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = io.ReadFull(connection, make([]byte, 5))
	return err
}

func main() {
	for {
		start := time.Now()
		if err := exchange(); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println(time.Since(start).Milliseconds())
		}
		time.Sleep(20 * time.Millisecond)
	}
}
