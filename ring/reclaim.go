package ring

// Reclaim is what a member does about an entry of its own ID in the table that beats what it says of itself: one from
// before its disk was lost, or a note that it is forgotten. It returns self in an epoch that beats the entry, and true;
// or self and false when there is nothing to do.
//
// Only one process may use an ID. Two that do would go on reclaiming it from one another, and be seen to by their
// epochs.
func Reclaim(self Member, seen Entry) (Member, bool) {
	own := MemberEntry(self)
	if seen.ID() != self.ID || !newer(&seen, &own) {
		return self, false
	}
	self.Epoch, self.Counter = seen.Epoch()+1, 0
	if seen.Forgotten != nil && seen.Forgotten.LossAccepted {
		self.LostBefore = 0
	}
	return self, true
}
