//go:build !race

package e2e

// raceDetector tells whether the tests were built with it.
const raceDetector = false
