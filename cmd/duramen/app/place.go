package app

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/ring"
)

// place is which series an ingester holds: those of its ordinal, one copy in its zone.
type place struct {
	Zone    string `json:"zone"`
	Ordinal int    `json:"ordinal"`
}

func (p place) String() string {
	if p.Zone == "" {
		return fmt.Sprintf("ordinal %d without a zone", p.Ordinal)
	}
	return fmt.Sprintf("ordinal %d of zone %s", p.Ordinal, p.Zone)
}

// ingester is the folder of the ingester's tenants.
func (d *dataDir) ingester() string { return filepath.Join(d.path, "ingester") }

// checkPlace refuses to begin elsewhere with samples that the bucket may not have: in the zone where they were, readers
// would take another ingester's answer for the whole, and in the new one nobody looks for them. ordinal may be
// ring.NoOrdinal, for one that is claimed later.
func (d *dataDir) checkPlace(zone string, ordinal int) error {
	was := d.instance.Place
	if was == nil || was.Zone == zone && (ordinal == ring.NoOrdinal || ordinal == was.Ordinal) {
		return nil
	}
	unshipped, err := ingester.UnshippedOnDisk(d.ingester())
	if err != nil {
		return fmt.Errorf("data directory %s: %w", d.path, err)
	}
	if len(unshipped) == 0 {
		return nil
	}
	now := "another one of zone " + zone
	if ordinal != ring.NoOrdinal {
		now = place{Zone: zone, Ordinal: ordinal}.String()
	}
	return fmt.Errorf("data directory %s is that of %s, with samples of %d tenants that may not be in the bucket (%s), and "+
		"this ingester is to be %s: start it as what it was, POST /ingester/prepare-shutdown, and stop it when it is "+
		"emptied; then it can be another one", d.path, was, len(unshipped), strings.Join(unshipped[:min(3, len(unshipped))], ", "),
		now)
}

// takePlace notes where the ingester takes part.
func (d *dataDir) takePlace(zone string, ordinal int) error {
	next := place{Zone: zone, Ordinal: ordinal}
	if d.instance.Place != nil && *d.instance.Place == next {
		return nil
	}
	return d.setPlace(&next)
}

// leavePlace notes that everything is in the bucket and the directory may be used for any place.
func (d *dataDir) leavePlace() error { return d.setPlace(nil) }

func (d *dataDir) setPlace(p *place) error {
	next := d.instance
	next.Place = p
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := writeDurably(filepath.Join(d.path, instanceName), append(data, '\n')); err != nil {
		return fmt.Errorf("note the place of the ingester: %w", err)
	}
	d.instance = next
	return nil
}
