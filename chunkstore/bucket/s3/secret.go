package s3

import "github.com/duramendb/duramen/internal/secret"

// Secret is a setting that does not show itself. Convert it to string to read it.
type Secret = secret.Text
