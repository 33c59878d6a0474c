package store

import "sync/atomic"

// indexBatch is the number of events that are appended before all of them enter the
// indexes of the history at once: fewer pages change than if each event did so by itself.
// A higher number means fewer pages for each event, but a longer transaction: 1500 events
// of a thousand resources take some 40 ms. A read of the history scans the events that
// are in no index yet.
const indexBatch = 1500

// historyIndex records which events are in the indexes of the history.
type historyIndex struct {
	indexedUpTo  atomic.Int64 // all events with ids up to this one are in the indexes
	pendingIndex int64        // the new value of indexedUpTo if the running transaction commits; 0: unchanged
}

// begin is called when a transaction starts.
func (h *historyIndex) begin() { h.pendingIndex = 0 }

// due reports whether events up to the last one should enter the indexes in the running
// transaction, and notes that they do.
func (h *historyIndex) due(last int64) (after int64, due bool) {
	after = h.indexedUpTo.Load()
	if last-after < indexBatch {
		return after, false
	}
	h.pendingIndex = last
	return after, true
}

// commit is called when the transaction has committed.
func (h *historyIndex) commit() {
	if h.pendingIndex != 0 {
		h.indexedUpTo.Store(h.pendingIndex)
	}
}

// parts implements backend.historyParts.
func (h *historyIndex) parts() []where {
	upTo := h.indexedUpTo.Load()
	var unindexed, indexed where
	unindexed.add("id > ?", upTo)
	indexed.add("filed AND id <= ?", upTo)
	return []where{unindexed, indexed}
}
