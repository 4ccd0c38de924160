package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// A process is a child of the bench, with what it started itself.
type process struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	log  string // the file with what it says
	done chan struct{}
	err  error
}

// stopWithin bounds how long a process may take to end when it is told to.
const stopWithin = 10 * time.Second

// start starts a program in dir; what it says goes to a file there. A piped one
// has its standard input and output connected, and ends when its input does.
func start(name, dir string, env []string, piped bool, argv ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	logFile, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = logFile, logFile
	// A group of its own: an interrupt at the terminal is the bench's to handle.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if piped {
		p.cmd.Stdout = nil
		out, err := p.cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		p.out = bufio.NewReaderSize(out, 1<<20)
		if p.in, err = p.cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	if !piped {
		go p.wait()
	}
	return p, nil
}

func (p *process) wait() {
	p.err = p.cmd.Wait()
	close(p.done)
}

// stop ends the process: the end of its input or SIGTERM, and SIGKILL to its
// whole group when that takes too long.
func (p *process) stop() {
	if p.in != nil {
		p.in.Close()
		io.Copy(io.Discard, p.out)
		go p.wait()
	} else {
		p.cmd.Process.Signal(syscall.SIGTERM)
	}
	select {
	case <-p.done:
	case <-time.After(stopWithin):
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

// said is the end of what the process wrote.
func (p *process) said() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-1500):])
}

// tree is a process and all its descendants.
func tree(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		parent, _ := strconv.Atoi(fields[1])
		child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		children[parent] = append(children[parent], child)
	}
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids, nil
}

// cpu is the time, user and system, that the processes have used, in
// nanoseconds: the clocks that the system accounts each process on, threads
// that have ended included (/proc/PID/stat shows them in ticks of 10 ms).
func cpu(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		const schedClock = 2 // CPUCLOCK_SCHED of a whole process
		var t syscall.Timespec
		clock := ^int32(pid)<<3 | schedClock
		_, _, e := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&t)), 0)
		if e != 0 {
			return 0, fmt.Errorf("the CPU clock of process %d: %w", pid, e)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// A share is how much of the machine something has had.
type share struct{ all, ours, steal time.Duration }

// machineUse is the time that all processors have worked since the machine
// started, what of it was for the bench and what it started, and the time that
// the machine's own host has kept from it.
func machineUse() (s share, err error) {
	const tick = time.Second / 100 // USER_HZ
	fields := strings.Fields(firstLine(fileText("/proc/stat")))
	for i, f := range fields {
		n, _ := strconv.Atoi(f)
		switch i {
		case 1, 2, 3, 6, 7: // user, nice, system, irq, softirq
			s.all += time.Duration(n) * tick
		case 8:
			s.steal = time.Duration(n) * tick
		}
	}
	pids, err := tree(os.Getpid())
	if err != nil {
		return s, err
	}
	for _, pid := range pids {
		used, err := cpu([]int{pid})
		if err != nil {
			continue // it has just ended, and counts below
		}
		s.ours += used
	}
	var ended syscall.Rusage
	err = syscall.Getrusage(syscall.RUSAGE_CHILDREN, &ended)
	s.ours += time.Duration(ended.Utime.Nano() + ended.Stime.Nano())
	return s, err
}

// resident is the memory that the processes have in RAM, in bytes. A page that
// two of them share counts twice, as it did before the tunnels.
func resident(pids []int) (int, error) {
	sum := 0
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		_, rest, ok := strings.Cut(string(b), "\nRss:")
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 {
			return 0, errors.New("smaps_rollup has no Rss")
		}
		kib, err := strconv.Atoi(fields[0])
		if err != nil {
			return 0, err
		}
		sum += kib << 10
	}
	return sum, nil
}
