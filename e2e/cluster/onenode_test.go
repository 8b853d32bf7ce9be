package cluster

import "testing"

// TestOneNode: what the other stories find of a cluster, they find of a node alone when nothing is wrong: every write and
// every answer.
func TestOneNode(t *testing.T) {
	s := newStory(t, nil, Member{Name: "node-0", Target: "all"})
	s.begin(live)
	s.flawless("a node alone", nil, 40, 20)
	s.end()
}
