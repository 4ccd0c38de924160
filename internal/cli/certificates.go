package cli

import (
	"errors"

	"singlegate/certs"
	"singlegate/gateway"
	"singlegate/internal/config"
)

// openClientCertificates opens what clients' certificates are verified by.
func openClientCertificates(file *config.File) error {
	var errs []error
	open := func(at string, c *gateway.ClientCertificates) {
		cfg, ok := file.Clients[at]
		if !ok || c == nil {
			return
		}
		clients, err := certs.LoadClients(cfg)
		if err != nil {
			errs = append(errs, err)
			return
		}
		c.Ask = clients.Ask
	}
	for _, l := range file.Gateway.Listeners {
		open(l.At, l.Clients)
	}
	for _, np := range file.Gateway.NodePorts {
		open(np.At, np.Clients)
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
