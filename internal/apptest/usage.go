package apptest

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// CPU returns the CPU time that the process has used so far.
func (p *Process) CPU(tb testing.TB) time.Duration {
	tb.Helper()
	text := p.proc(tb, "stat")
	// The program's name, which is in parentheses, may have spaces.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	return time.Duration(number(tb, fields[11])+number(tb, fields[12])) * 10 * time.Millisecond // a tick of the kernel
}

// Memory is the memory of a process, in bytes.
type Memory struct {
	Resident int64 // now
	Peak     int64 // the maximum so far
}

func (m Memory) String() string {
	return fmt.Sprintf("%d MB resident, %d MB at most", m.Resident/1e6, m.Peak/1e6)
}

// Memory returns the memory of the process.
func (p *Process) Memory(tb testing.TB) Memory {
	tb.Helper()
	var m Memory
	for line := range strings.Lines(string(p.proc(tb, "status"))) {
		switch fields := strings.Fields(line); fields[0] {
		case "VmRSS:":
			m.Resident = number(tb, fields[1]) * 1024
		case "VmHWM:":
			m.Peak = number(tb, fields[1]) * 1024
		}
	}
	return m
}

func (p *Process) proc(tb testing.TB, file string) []byte {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.ID(), file))
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func number(tb testing.TB, text string) int64 {
	tb.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}
