package api

import (
	"context"
	"net"
	"net/http"
	"time"
)

// connectionKey is the key of a request's connection in its context.
type connectionKey struct{}

func withConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, conn)
}

// resetPatience is how long a client that has closed its connection may take to say so.
const resetPatience = time.Second

// delivered sends what was written and reports whether the client can have received it.
//
// The end of a client's stream has two meanings: it has closed the connection, or it has nothing more to send and still
// reads. What follows the answer distinguishes them, because a closed peer resets the connection when it gets bytes. Where
// the stream had ended before the answer, delivered therefore watches the connection for resetPatience. The client does not
// wait for that: it has the whole answer, and can send nothing more.
func delivered(w http.ResponseWriter, r *http.Request) bool {
	if http.NewResponseController(w).Flush() != nil {
		return false
	}
	if r.Context().Err() == nil {
		return true
	}
	if r.ProtoMajor > 1 { // only a reset ends such a request's context
		return false
	}
	conn, known := r.Context().Value(connectionKey{}).(net.Conn)
	return !known || !resetWithin(conn, resetPatience)
}
