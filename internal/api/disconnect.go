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

// resetTimeout is how long delivered waits for a reset of a connection whose client has
// closed it.
const resetTimeout = time.Second

// delivered sends what was written and reports whether the client can have received it.
//
// The end of a client's stream has two meanings: the client has closed the connection, or
// it has nothing more to send and still reads. What follows the response distinguishes
// the two: a closed peer resets the connection when it receives bytes. If the stream
// ended before the response, delivered therefore watches the connection for resetTimeout.
// The client does not wait for that: it has the whole response, and it can send nothing
// more.
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
	conn, found := r.Context().Value(connectionKey{}).(net.Conn)
	return !found || !resetWithin(conn, resetTimeout)
}
