// Package archtest holds the tests of what no compiler checks: which package may import which, and habits that the tests
// of all packages keep to. It has no code of its own.
package archtest
