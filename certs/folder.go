package certs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// units are the sources of one certificate each that a source stands for.
func (s Source) units() ([]Source, error) {
	if s.Folder == "" {
		return []Source{s}, nil
	}
	names, err := certificateFiles(s.Folder)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("certificates: folder %s holds none: expected im.pem or im.crt with im.key, im-key.pem or the key in the same file", s.Folder)
	}
	var units []Source
	for _, name := range names {
		unit := s
		unit.Cert, unit.Key = name, keyBeside(name)
		units = append(units, unit)
	}
	return units, nil
}

// keyBeside finds the file with a certificate's key; "" where it has to be in
// the certificate's.
func keyBeside(cert string) string {
	stem := strings.TrimSuffix(cert, filepath.Ext(cert))
	for _, key := range []string{stem + ".key", cert + ".key", stem + "-key.pem", stem + ".key.pem"} {
		if _, err := os.Stat(key); err == nil {
			return key
		}
	}
	return ""
}
