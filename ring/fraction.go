package ring

// Fraction is the part of the tenant's series, from 0 to 1, that an ingester is expected to hold: each of the places that
// the tenant uses in its zone an equal one, of all series or, with more zones than copies, of those that the zone gets.
// How a limit for the whole cluster is divided follows from it. It is 1 for one that has no place: nobody sends it new
// series, but for those who do not know that yet.
func (p *Placement) Fraction(id string) float64 {
	zones := p.zones
	if zones == nil {
		zones = p.layout.zones
	}
	for i := range zones {
		z := &zones[i]
		for j := range z.places {
			if z.places[j].writable && p.layout.ingesters[z.places[j].slot].ID == id {
				return p.ofZone(len(zones)) / float64(z.size())
			}
		}
	}
	return 1
}

// size is the number of places that share the zone's series.
func (z *zone) size() (n int) {
	for i := range z.places {
		if z.places[i].writable {
			n++
		}
	}
	return n
}

// ofZone is the part of all series of which each of so many zones gets a copy.
func (p *Placement) ofZone(zones int) float64 {
	return float64(min(p.layout.rf, zones)) / float64(zones)
}
