package cli

import (
	"errors"

	"singlegate/certs"
	"singlegate/internal/config"
)

// openClientCertificates opens what clients' certificates are verified by.
func openClientCertificates(file *config.File) error {
	var errs []error
	for i := range file.Gateway.Listeners {
		l := &file.Gateway.Listeners[i]
		cfg, ok := file.Clients[l.Name]
		if !ok || l.Clients == nil {
			continue
		}
		clients, err := certs.LoadClients(cfg)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l.Clients.Ask = clients.Ask
	}
	return errors.Join(errs...)
}

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
