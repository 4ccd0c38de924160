package upstream

import (
	"math"
	"slices"
	"sync/atomic"

	"singlegate/discovery"
)

// A Member is a node of a pool.
type Member struct {
	Node  *Node
	Share float64 // its part of what the pool is asked, of one; 0: an equal part of what the others leave
}

// Pool makes a service of some nodes of one view, which may be of several
// services. Its nodes share their counts, marks and health with those of the view;
// they are never to be looked up by name. Without shares they have the weights
// that they have anyway. Earlier is the pool as it was in the view before, whose
// turn the new one goes on with; nil: there was none.
func Pool(name string, members []Member, earlier *Service) *Service {
	next := &atomic.Uint32{}
	if earlier != nil {
		next = earlier.next
	}
	pool := newService(name, discovery.Service{}, next)
	weights := weightsOf(members)
	for i, m := range members {
		if weights[i] > 0 {
			n := *m.Node
			n.Weight = weights[i]
			pool.nodes = append(pool.nodes, &n)
		}
	}
	pool.order = weightedOrder(pool.nodes)
	return pool
}

// scale is the weight of a whole.
const scale = 1000

// weightsOf makes weights of shares: shares first, brought to a whole where they
// are more than that or where nobody is left to take the rest, and equal parts of
// the rest for the others, which may be none. As nodes that do not work get
// nothing anyway, they do not count in this; should all others fail as well, each
// gets as much as the next.
func weightsOf(members []Member) []int {
	weights := make([]int, len(members))
	if !slices.ContainsFunc(members, func(m Member) bool { return m.Share > 0 }) {
		for i, m := range members {
			weights[i] = max(m.Node.Weight, 1)
		}
		return weights
	}
	sum, rest := 0.0, 0
	for _, m := range members {
		switch {
		case !m.counts():
		case m.Share > 0:
			sum += m.Share
		default:
			rest++
		}
	}
	whole := max(sum, 1)
	if rest == 0 && sum > 0 {
		whole = sum
	}
	for i, m := range members {
		switch {
		case !m.counts():
			weights[i] = 1
		case m.Share > 0:
			weights[i] = part(m.Share / whole)
		default:
			weights[i] = part((1 - sum) / float64(rest))
		}
	}
	return weights
}

// counts tells whether the node works by the word of its source.
func (m Member) counts() bool { return m.Node.Status == discovery.Passing || m.Node.Status == "" }

// part is the weight of a part of a whole; the least one is more than nothing.
func part(p float64) int {
	if p <= 0 {
		return 0
	}
	return max(1, int(math.Round(min(p, 1)*scale)))
}
