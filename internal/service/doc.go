// Package service offers the operations of the lock server in terms of the domain. It
// checks every request against the limits, holds the registry of waiting requests, and
// declares what it needs of a store.
//
// Every command and every read of a caller passes one point, the gate, before it reaches
// the store. What the server does on its own behalf, such as granting a resource to the
// next waiter or recording an expiry, does not pass it.
package service
