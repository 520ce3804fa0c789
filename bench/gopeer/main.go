// Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later

// The peers in Go: a bare net.Conn, and a stream of yamux, a multiplexer as Go programs use them. Each has a server in
// Go, since yamux speaks a protocol of its own.
//
//	gopeer bare_server, gopeer yamux_server     print their port and serve for ever
//	gopeer bare|yamux PORT SIZE                 contender: one round trip after the other; ../bench.h tells the rounds
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func echo(conn net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err = conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

func serve(handle func(net.Conn)) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	for {
		conn, err := listener.Accept()
		must(err)
		go handle(conn)
	}
}

func echoStreams(conn net.Conn) {
	session, err := yamux.Server(conn, nil)
	must(err)
	for {
		stream, err := session.Accept()
		if err != nil {
			return
		}
		go echo(stream)
	}
}

func cpuTime() time.Duration {
	var used syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func rounds(conn net.Conn, size int) {
	request, answer := make([]byte, size), make([]byte, size)
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		must(err)
		cpu, wall := cpuTime(), time.Now()
		for ; n > 0; n-- {
			_, err = conn.Write(request)
			must(err)
			_, err = io.ReadFull(conn, answer)
			must(err)
		}
		fmt.Println(time.Since(wall).Nanoseconds(), (cpuTime() - cpu).Nanoseconds())
	}
}

func main() {
	if len(os.Args) < 2 {
		must(fmt.Errorf("usage: see the top of main.go"))
	}
	switch os.Args[1] {
	case "bare_server":
		serve(echo)
	case "yamux_server":
		serve(echoStreams)
	}
	conn, err := net.Dial("tcp", "127.0.0.1:"+os.Args[2])
	must(err)
	size, err := strconv.Atoi(os.Args[3])
	must(err)
	if os.Args[1] == "yamux" {
		session, err := yamux.Client(conn, nil)
		must(err)
		conn, err = session.Open()
		must(err)
	}
	rounds(conn, size)
}
