// Package fanout owns how recent samples are read from a cluster: which ingesters of the ring are asked, who stands in for
// one that is slow or away, and the merge of their answers. It refuses to answer with less than a quorum proves, and plans
// nothing: what the view of a query is, and what is done when an answer does not fit it, is package querier's. Read package
// ring next for zones and quorum, and duramenpb.View for what an ingester owes.
package fanout
