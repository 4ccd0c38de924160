package audit

import (
	"errors"
	"io"
	"os"
)

// A disk is what the journal asks of the file system; tests have others.
type disk struct {
	open   func(name string) (handle, error) // to read and append; made if it is not there
	stat   func(name string) (os.FileInfo, error)
	rename func(from, to string) error
}

// A handle is an open file.
type handle interface {
	io.ReaderAt
	io.Writer // appends
	Stat() (os.FileInfo, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

var errLocked = errors.New("another process writes this audit log")

func realDisk() disk {
	return disk{open: openFile, stat: os.Stat, rename: os.Rename}
}

// openFile opens a file that its group may read at most, and locks it.
func openFile(name string) (handle, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
