package reconcile

// indexName is the peers' index of a tenant's blocks.
const indexName = "bucket-index.json.gz"
