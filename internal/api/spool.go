package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"resource-lock-manager/internal/lock"
)

const (
	// maxSpools is the maximum number of whole lists that are read or sent at a time: each may take a file.
	maxSpools = 8
	// spoolPatience is how long a request waits for one of them.
	spoolPatience = 10 * time.Second
	// spoolMemory is the maximum size of an answer that is kept in memory.
	spoolMemory = 1 << 20
	// sendAtOnce is the part of an answer that a client must read within the time that a whole answer of another kind may take.
	sendAtOnce = 256 << 10
)

// spool keeps a long answer until it is complete, so that the database is read at its own speed and not at the client's. What
// does not fit into memory goes to a temporary file that has no name, so that nothing remains of it when the process ends.
type spool struct {
	memory bytes.Buffer
	file   *os.File // nil while all is in memory
}

// waitForSpool takes a place for a whole list. The caller gives it back by calling done.
func (a *API) waitForSpool() (done func(), err error) {
	patience := time.NewTimer(spoolPatience)
	defer patience.Stop()
	select {
	case a.spools <- struct{}{}:
		return func() { <-a.spools }, nil
	case <-patience.C:
		return nil, lock.ErrOverloaded
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

// flush moves what is in memory to the file.
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
		return fmt.Errorf("%w: a long list needs a temporary file (TMPDIR): %w", lock.ErrOverloaded, err)
	}
	return nil
}

// complete is called when everything is written.
func (s *spool) complete() error {
	if s.file == nil {
		return nil
	}
	return s.flush()
}

// sendTo writes all of it to a client, which must keep reading.
func (s *spool) sendTo(w http.ResponseWriter) error {
	var from io.Reader = &s.memory
	if s.file != nil {
		from = io.NewSectionReader(s.file, 0, 1<<62)
	}
	control := http.NewResponseController(w)
	for {
		err := control.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		switch _, err := io.CopyN(w, from, sendAtOnce); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// Close gives back what it has taken.
func (s *spool) Close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
