package gateway

import "crypto/tls"

// TLSPolicy is what one listener takes of TLS, in place of what the TLS
// configuration of all of them says. Zero fields leave that as it is. The
// certificates are those of all listeners.
type TLSPolicy struct {
	MinVersion   uint16        // tls.VersionTLS12 or tls.VersionTLS13
	CipherSuites []uint16      // of TLS 1.2
	Curves       []tls.CurveID // key exchanges
}

func (p *TLSPolicy) apply(cfg *tls.Config) {
	if p.MinVersion != 0 {
		cfg.MinVersion = p.MinVersion
	}
	if p.CipherSuites != nil {
		cfg.CipherSuites = p.CipherSuites
	}
	if p.Curves != nil {
		cfg.CurvePreferences = p.Curves
	}
}

// ownTLS is cfg for a listener with a policy of its own, or one that asks its
// clients for certificates. What cfg answers with is looked at for each
// handshake anew, so that certificates change for it as for the others.
func (l *Listener) ownTLS(cfg *tls.Config) *tls.Config {
	if l.Policy == nil && l.Clients == nil {
		return cfg
	}
	own := cfg.Clone()
	own.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		chosen := cfg
		if cfg.GetConfigForClient != nil {
			c, err := cfg.GetConfigForClient(hello)
			if err != nil {
				return nil, err
			}
			if forChallenge(c) {
				return c, nil // it ends with the handshake
			}
			if c != nil {
				chosen = c
			}
		}
		chosen = chosen.Clone()
		if l.Policy != nil {
			l.Policy.apply(chosen)
		}
		if l.Clients != nil {
			l.Clients.ask(chosen)
		}
		return chosen, nil
	}
	return own
}
