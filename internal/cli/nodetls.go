package cli

import (
	"errors"

	"singlegate/internal/config"
)

// openNodeTLS opens the certificates with which nodes are spoken to.
func openNodeTLS(file *config.File) error {
	var errs []error
	for i := range file.Gateway.Services {
		ref := &file.Gateway.Services[i]
		client, ok := file.NodeTLS[ref.Name]
		if !ok || ref.TLS == nil {
			continue
		}
		cfg, err := client.Config()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ref.TLS.Config = cfg
	}
	return errors.Join(errs...)
}
