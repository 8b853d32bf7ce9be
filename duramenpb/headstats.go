package duramenpb

// HeadStats says what a tenant's series in memory consist of. All of it is zero for a tenant without any.
type HeadStats struct {
	Series     uint64
	LabelPairs int
	Chunks     int64
	// MinTime and MaxTime bound the samples in memory, in milliseconds since the Unix epoch.
	MinTime, MaxTime int64

	// The largest of each, in falling order: series by metric name and by "name=value", values by label name, and bytes
	// by label name, which count a label once for each series that has it.
	SeriesByMetric, SeriesByPair, ValuesByLabel, BytesByLabel []Count
}

// Count is a number of what Name names.
type Count struct {
	Name  string
	Value uint64
}
