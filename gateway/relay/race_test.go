//go:build race

package relay

// raced: under the race detector, pools forget some of what they hold.
const raced = true
