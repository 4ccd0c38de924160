package auth

import (
	"container/list"
	"time"
)

// A cache remembers decisions for a while, the most recently used ones of them
// up to a bound. Not safe for concurrent use.
type cache struct {
	most  int
	byKey map[credential]*list.Element
	used  *list.List // of *remembered, the latest first
}

type remembered struct {
	id       credential
	decision Decision
	until    time.Time
}

func newCache(most int) *cache {
	return &cache{most: most, byKey: map[credential]*list.Element{}, used: list.New()}
}

func (c *cache) get(id credential, now time.Time) (Decision, bool) {
	e := c.byKey[id]
	if e == nil {
		return Decision{}, false
	}
	r := e.Value.(*remembered)
	if !now.Before(r.until) {
		c.drop(e)
		return Decision{}, false
	}
	c.used.MoveToFront(e)
	return r.decision, true
}

func (c *cache) put(id credential, d Decision, until time.Time) {
	if e := c.byKey[id]; e != nil {
		c.drop(e)
	}
	c.byKey[id] = c.used.PushFront(&remembered{id, d, until})
	if len(c.byKey) > c.most {
		c.drop(c.used.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	delete(c.byKey, c.used.Remove(e).(*remembered).id)
}
