package store

import (
	"errors"

	"gorm.io/gorm/logger"
)

// discard keeps GORM from logging: errors are returned, and logged once where they are answered.
var discard = logger.Discard

// failure is what a database error means for a transaction that was not committed.
type failure int

const (
	faulty      failure = iota // this program or this command is at fault: it would fail again
	again                      // another transaction or a broken connection came in the way: run it again now
	unavailable                // the database cannot do it now
)

// errRace: another server inserted a row for a resource that had none when this transaction looked.
var errRace = errors.New("another server inserted the same resource")

func (s *Store) classify(err error) failure {
	if errors.Is(err, errRace) {
		return again
	}
	return s.dialect.classify(err)
}
