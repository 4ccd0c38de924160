package admin

import (
	"time"

	"singlegate/certs"
)

// Certificates is the answer of /api/certificates.
type Certificates struct {
	Time         time.Time    `json:"time"` // when the gateway answered
	Certificates []certs.Info `json:"certificates"`
	Faults       []string     `json:"faults"` // what of the disk is refused and belongs to none of them
}

func certificatesOf(gw Gateway) Certificates {
	served, faults := gw.Certificates()
	return Certificates{time.Now(), append([]certs.Info{}, served...), append([]string{}, faults...)}
}
