package gateway

import "fmt"

// A bodyLimit is how many bytes a body may have: the error for which an exchange
// is given up whose body has more. Such a body is chunked: a declared length is
// refused by admit.
type bodyLimit int64

func (l bodyLimit) Error() string {
	return fmt.Sprintf("the client's body is larger than max_body, %d bytes", int64(l))
}

// within cuts p so that a read gives one byte more than the limit at most.
func (b *requestBody) within(p []byte) []byte {
	if b.limit == 0 {
		return p
	}
	return p[:min(int64(len(p)), int64(b.limit)-b.received.Load()+1)]
}

// exceeds tells whether a body of which so much has come is too large.
func (b *requestBody) exceeds(received int64) bool { return b.limit > 0 && received > int64(b.limit) }
