package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"resource-lock-manager/internal/service"
)

const (
	// maxSpools is the maximum number of whole lists that are read or sent at the same
	// time. Each may need a file.
	maxSpools = 8
	// spoolTimeout is the maximum time that a request waits to be one of them.
	spoolTimeout = 10 * time.Second
	// spoolMemory is the maximum size of a response that is kept in memory.
	spoolMemory = 1 << 20
	// spoolChunk is the size of the parts of a response for each of which the client has
	// writeTimeout to read it.
	spoolChunk = 256 << 10
)

// spool keeps a long response until it is complete, so that a slow client does not slow
// down the read of the database. What does not fit into memory is written to a temporary
// file. The file has no name, so that it does not outlive the process.
type spool struct {
	memory bytes.Buffer
	file   *os.File // nil while all is in memory
}

// waitForSpool returns once fewer than maxSpools whole lists are being read or sent. The
// caller calls done after it has sent its list.
func (a *API) waitForSpool() (done func(), err error) {
	timeout := time.NewTimer(spoolTimeout)
	defer timeout.Stop()
	select {
	case a.spools <- struct{}{}:
		return func() { <-a.spools }, nil
	case <-timeout.C:
		return nil, service.ErrOverloaded
	}
}

// Write implements io.Writer.
func (s *spool) Write(p []byte) (int, error) {
	n, _ := s.memory.Write(p) // it never fails
	if s.memory.Len() < spoolMemory {
		return n, nil
	}
	return n, s.flush()
}

// flush moves the content from memory to the file.
func (s *spool) flush() (err error) {
	if s.file == nil {
		if s.file, err = os.CreateTemp("", "lockd-list-"); err == nil {
			err = os.Remove(s.file.Name())
		}
	}
	if err == nil {
		_, err = s.memory.WriteTo(s.file)
	}
	if err != nil {
		return fmt.Errorf("%w: a long list needs a temporary file (TMPDIR): %w", service.ErrOverloaded, err)
	}
	return nil
}

// complete is called after everything was written.
func (s *spool) complete() error {
	if s.file == nil {
		return nil
	}
	return s.flush()
}

// sendTo writes the content to the client. It returns an error if the client does not
// read for too long.
func (s *spool) sendTo(w http.ResponseWriter) error {
	var from io.Reader = &s.memory
	if s.file != nil {
		from = io.NewSectionReader(s.file, 0, 1<<62)
	}
	for {
		if err := extendDeadline(w, writeTimeout); err != nil {
			return err
		}
		switch _, err := io.CopyN(w, from, spoolChunk); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// Close closes the file.
func (s *spool) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
