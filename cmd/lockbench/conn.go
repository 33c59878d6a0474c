package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
)

// conn is one connection of the load. It implements only the part of HTTP that the
// answers need, because the client often shares the machine with the server and must cost
// little.
type conn struct {
	net    net.Conn
	reader *bufio.Reader
	host   string
	body   []byte
}

func dial(server *url.URL) (*conn, error) {
	c, err := net.Dial("tcp", server.Host)
	if err != nil {
		return nil, err
	}
	return &conn{net: c, reader: bufio.NewReader(c), host: server.Host}, nil
}

func (c *conn) close() { _ = c.net.Close() }

// request returns the bytes of a request for send. A nil body stands for no body.
func (c *conn) request(method, path string, body []byte) []byte {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, c.host)
	if body != nil {
		head += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	return append([]byte(head+"\r\n"), body...)
}

// send sends one or several requests. Their answers are received one by one.
func (c *conn) send(request []byte) error {
	_, err := c.net.Write(request)
	return err
}

// receive reads the next answer. The body is valid until the next call.
func (c *conn) receive() (status int, body []byte, err error) {
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, nil, fmt.Errorf("no HTTP answer: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("no HTTP answer: %q", line)
	}
	length := -1
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		if len(line) <= len("\r\n") {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, nil, err
			}
		}
	}
	if length < 0 {
		return 0, nil, errors.New("an answer without Content-Length")
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	_, err = io.ReadFull(c.reader, c.body[:length])
	return status, c.body[:length], err
}

// must sends a request and returns an error if the answer has another status.
func (c *conn) must(request []byte, want int) error {
	if err := c.send(request); err != nil {
		return err
	}
	return c.want(want)
}

// want receives an answer and returns an error if it has another status.
func (c *conn) want(want int) error {
	status, body, err := c.receive()
	if err == nil && status != want {
		err = fmt.Errorf("status %d, want %d: %s", status, want, body)
	}
	return err
}
