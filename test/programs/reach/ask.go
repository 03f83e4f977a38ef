// The client of ask.c in Go, whose runtime makes system calls and looks names up by itself.
package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

const patience = 2 * time.Second

type answer struct {
	Lookup    float64   `json:"lookup"`
	Connect   float64   `json:"connect"`
	Exchanges []float64 `json:"exchanges"`
	Stage     string    `json:"stage,omitempty"`
	Error     string    `json:"error,omitempty"`
	Text      string    `json:"text"`
}

func since(start time.Time) float64 { return float64(time.Since(start).Microseconds()) / 1000 }

func named(err error) string {
	var dns *net.DNSError
	var number syscall.Errno
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "ENOTFOUND"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "ETIMEDOUT"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "EOF"
	case errors.As(err, &number):
		for name, each := range map[string]syscall.Errno{"ECONNREFUSED": syscall.ECONNREFUSED, "ECONNRESET": syscall.ECONNRESET,
			"EHOSTUNREACH": syscall.EHOSTUNREACH, "ENETUNREACH": syscall.ENETUNREACH, "ETIMEDOUT": syscall.ETIMEDOUT, "EPIPE": syscall.EPIPE} {
			if number == each {
				return name
			}
		}
	}
	return err.Error()
}

func ask(said *answer) {
	fail := func(stage string, err error) { said.Stage, said.Error = stage, named(err) }
	exchanges, _ := strconv.Atoi(os.Args[3])
	size, _ := strconv.Atoi(os.Args[4])
	start := time.Now()
	addresses, err := net.LookupHost(os.Args[1])
	said.Lookup = since(start)
	if err != nil {
		fail("lookup", err)
		return
	}
	start = time.Now()
	connection, err := net.DialTimeout("tcp4", net.JoinHostPort(addresses[0], os.Args[2]), patience)
	said.Connect = since(start)
	if err != nil {
		fail("connect", err)
		return
	}
	for i := 0; i < exchanges; i++ {
		bytes := make([]byte, size)
		for at := range bytes {
			bytes[at] = byte('0' + at%10)
		}
		start = time.Now()
		connection.SetDeadline(start.Add(patience))
		if _, err = connection.Write(bytes); err == nil {
			_, err = io.ReadFull(connection, bytes)
		}
		if err != nil {
			fail("exchange", err)
			return
		}
		said.Text = string(bytes)
		if size > 10 {
			said.Text = said.Text[:10]
		}
		said.Exchanges = append(said.Exchanges, since(start))
	}
}

func main() {
	said := answer{Exchanges: []float64{}}
	ask(&said)
	json.NewEncoder(os.Stdout).Encode(said)
}
