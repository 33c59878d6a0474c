// Package archtest holds the tests of what no compiler checks: which package may import
// which, the rules for tests and words, what the documents claim, and the files in
// docs/deploy. It has no other code.
package archtest
