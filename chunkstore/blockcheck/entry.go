package blockcheck

import (
	"fmt"
	"slices"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// CompareEntry returns where the manifest's entry of a block and its meta.json, of that many bytes, say different things.
func CompareEntry(m *block.Meta, metaBytes int64, entry manifest.Block) (faults []Fault) {
	own := m.ManifestBlock(metaBytes)
	compare := func(what string, meta, listed any) {
		if meta != listed {
			text := fmt.Sprintf("%s is %v here and %v in the manifest", what, meta, listed)
			faults = append(faults, Fault{File: block.MetaName, Offset: -1, Text: text})
		}
	}
	compare("ulid", own.ULID, entry.ULID)
	compare("the first time", own.MinTime, entry.MinTime)
	compare("the end of the range", own.MaxTime, entry.MaxTime)
	compare("the level", own.Level, entry.Level)
	compare("the number of series", own.Series, entry.Series)
	compare("the number of samples", own.Samples, entry.Samples)
	compare("the number of chunks", own.Chunks, entry.Chunks)
	compare("the size of all files", own.SizeBytes, entry.SizeBytes)
	compare("the writer", own.Writer, entry.Writer)
	compare("being out of order", own.OutOfOrder, entry.OutOfOrder)
	if !slices.Equal(own.Sources, entry.Sources) {
		compare("the list of sources", fmt.Sprint(own.Sources), fmt.Sprint(entry.Sources))
	}
	return faults
}
