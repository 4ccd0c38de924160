package cli

import (
	"context"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"singlegate/certs"
	"singlegate/gateway"
	"singlegate/internal/config"
)

// A surface is what the admin address tells of.
type surface struct {
	*gateway.Server
	store *certs.Store
}

// Certificates implements admin.Gateway.
func (s surface) Certificates() ([]certs.Info, []string) { return s.store.Infos(), s.store.Faults() }

// tendCerts follows the files of certificates until stop.
func tendCerts(store *certs.Store, log zerolog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		store.Run(ctx, certs.Log(logTo(log)))
	}()
	return func() {
		cancel()
		<-done
	}
}

// certMetrics are the certificates for Prometheus: the gateway, whose other
// metrics these stand beside, knows nothing of where they come from.
type certMetrics struct {
	store                                                     *certs.Store
	notAfter, chain, served, refused, fault, staple, failures *prometheus.Desc
}

func newCertMetrics(store *certs.Store) *certMetrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("singlegate_"+name, help, []string{"source", "alias", "name"}, nil)
	}
	return &certMetrics{
		store:    store,
		notAfter: desc("certificate_not_after_timestamp_seconds", "When the certificate ends; its name is the first of those that it covers."),
		chain:    desc("certificate_chain_complete", "1 when the chain that is sent holds the issuer of the certificate, else 0."),
		served:   desc("certificate_served_total", "Full TLS handshakes that the certificate was chosen for; resumed ones send none."),
		refused:  desc("certificate_replacement_refused", "1 while what is on disk in the certificate's place is refused, else 0. `singlegate certs` gives the reason."),
		fault:    desc("certificate_renewal_fault", "Of certificates by ACME: 1 while the last try to get or renew it has failed, or it has not come yet, else 0. `singlegate certs` gives the reason."),
		staple:   desc("certificate_staple_expiry_timestamp_seconds", "When the OCSP answer ends that is stapled, for certificates that name a responder; 0: there is none."),
		failures: desc("certificate_ocsp_failures_total", "Questions to OCSP responders that brought no usable answer, for certificates that name one."),
	}
}

// Describe implements prometheus.Collector.
func (m *certMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.notAfter, m.chain, m.served, m.refused, m.fault, m.staple, m.failures} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A file that the config names twice
// is in it once.
func (m *certMetrics) Collect(ch chan<- prometheus.Metric) {
	seen := map[[3]string]bool{}
	for _, c := range m.store.Infos() {
		labels := [3]string{c.Source, c.Alias, c.Names[0]}
		if seen[labels] {
			continue
		}
		seen[labels] = true
		send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64) {
			ch <- prometheus.MustNewConstMetric(d, kind, value, labels[:]...)
		}
		if strings.HasPrefix(c.Source, "acme ") {
			send(m.fault, prometheus.GaugeValue, one(c.Fault != ""))
		}
		if c.NotAfter.IsZero() {
			continue // it is still being got
		}
		send(m.notAfter, prometheus.GaugeValue, float64(c.NotAfter.Unix()))
		send(m.chain, prometheus.GaugeValue, one(c.ChainComplete))
		send(m.served, prometheus.CounterValue, float64(c.Served))
		send(m.refused, prometheus.GaugeValue, one(c.Refused != ""))
		if c.OCSP.Responder == "" {
			continue
		}
		until := 0.0
		if c.OCSP.Stapled {
			until = float64(c.OCSP.Until.Unix())
		}
		send(m.staple, prometheus.GaugeValue, until)
		send(m.failures, prometheus.CounterValue, float64(c.OCSP.Failures))
	}
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// acmeInfos are the certificates that a gateway would get.
func acmeInfos(file *config.File) (infos []certs.Info) {
	for _, a := range file.ACME {
		for _, name := range a.Names {
			infos = append(infos, certs.Info{Names: []string{name}, Source: "acme " + hostOf(a.Directory)})
		}
	}
	return infos
}
