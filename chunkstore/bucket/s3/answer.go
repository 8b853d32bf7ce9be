package s3

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"
)

const (
	// maxPageBytes bounds the answers that are held in memory: 1000 entries with keys of 1024 bytes, each byte
	// written as %XX, come to 4 MB.
	maxPageBytes = 16 << 20
	// maxErrorBytes bounds the body of an error, and of whatever else has no more to say. Real ones have a kilobyte; the
	// library keeps what it gets in memory and reads the rest to its end, of which a page may have none.
	maxErrorBytes = 64 << 10
)

// answers is the way to the server as the library sees it: it counts requests and lets through only what an S3 server
// would answer. The library takes any 404 for a missing object and any XML for an empty listing, and neither a proxy
// nor an error page may make Duramen believe that data is not there.
type answers struct {
	base http.RoundTripper
	m    *metrics
}

// RoundTrip implements http.RoundTripper.
func (a *answers) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(req.Header.Get("Authorization"), "AWS4-HMAC-SHA256") {
		return a.base.RoundTrip(req) // not for the bucket: credentials come the same way
	}
	kind := requestKind(req)
	resp, err := a.base.RoundTrip(req)
	if err != nil {
		a.m.requests.WithLabelValues(kind, "error").Inc()
		return nil, err
	}
	a.m.requests.WithLabelValues(kind, statusClass(resp.StatusCode)).Inc()
	if err := check(kind, resp); err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	if kind == listObjects {
		countPage(req.Context())
	}
	if resp.StatusCode >= 300 || kind != getObject && kind != listObjects && kind != deleteObjects {
		resp.Body = bounded{io.LimitReader(resp.Body, maxErrorBytes), resp.Body}
	}
	return resp, nil
}

// What a request asks, as it stands in metrics.
const (
	getObject      = "get_object"
	headObject     = "head_object"
	putObject      = "put_object"
	deleteObject   = "delete_object"
	deleteObjects  = "delete_objects"
	listObjects    = "list_objects"
	bucketLocation = "get_bucket_location"
	createUpload   = "create_multipart_upload"
	uploadPart     = "upload_part"
	completeUpload = "complete_multipart_upload"
	abortUpload    = "abort_multipart_upload"
	otherRequest   = "other"
)

func requestKind(req *http.Request) string {
	q := req.URL.Query()
	switch req.Method {
	case http.MethodGet:
		switch {
		case q.Has("list-type"):
			return listObjects
		case q.Has("location"):
			return bucketLocation
		case q.Has("uploads"):
			return otherRequest
		}
		return getObject
	case http.MethodHead:
		return headObject
	case http.MethodPut:
		if q.Has("partNumber") {
			return uploadPart
		}
		return putObject
	case http.MethodPost:
		switch {
		case q.Has("delete"):
			return deleteObjects
		case q.Has("uploads"):
			return createUpload
		case q.Has("uploadId"):
			return completeUpload
		}
	case http.MethodDelete:
		if q.Has("uploadId") {
			return abortUpload
		}
		return deleteObject
	}
	return otherRequest
}

func statusClass(code int) string {
	if code < 100 || code > 599 {
		return "error"
	}
	return string("012345"[code/100]) + "xx"
}

// check returns ErrNotS3 for an answer that cannot be one, and gives back the parts of the body that it read.
func check(kind string, resp *http.Response) error {
	switch {
	case resp.StatusCode == http.StatusNotFound && kind != headObject:
		return checkDocument(resp, "Error", maxErrorBytes)
	case resp.StatusCode >= 300:
		return nil // an error in any case
	case kind == getObject && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent,
		kind == headObject && resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%w: status %s", ErrNotS3, resp.Status)
	case kind == getObject:
		// The library would find out the same and then read the body to its end, whatever its size.
		if _, err := minio.ToObjectInfo("", "", resp.Header); err != nil {
			return fmt.Errorf("%w: status %s: %w", ErrNotS3, resp.Status, err)
		}
		return nil
	case kind == listObjects:
		return checkDocument(resp, "ListBucketResult", maxPageBytes)
	case kind == deleteObjects:
		return checkDocument(resp, "DeleteResult", maxPageBytes)
	case (kind == putObject || kind == uploadPart) && resp.Header.Get("ETag") == "":
		return fmt.Errorf("%w: status %s without an ETag", ErrNotS3, resp.Status)
	default:
		return nil
	}
}

// checkDocument reads the whole body, which has to be one XML document with the given root.
func checkDocument(resp *http.Response, root string, limit int64) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if int64(len(data)) > limit {
		return fmt.Errorf("%w: status %s with more than %d bytes", ErrNotS3, resp.Status, limit)
	}
	var document struct{ XMLName xml.Name }
	if err := xml.Unmarshal(data, &document); err != nil {
		// Without err: "EOF" in an error makes the library replace it by one of a lost connection.
		return fmt.Errorf("%w: status %s with something that is not XML", ErrNotS3, resp.Status)
	}
	if document.XMLName.Local != root {
		return fmt.Errorf("%w: status %s with <%s>, not <%s>", ErrNotS3, resp.Status, document.XMLName.Local, root)
	}
	if err := resp.Body.Close(); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(data))
	return nil
}

// bounded is a body that ends early rather than never.
type bounded struct {
	io.Reader
	io.Closer
}

type pagesKey struct{}

// withPages returns a context under which the pages of a listing are counted in pages as they arrive, by the goroutine
// that asks for them.
func withPages(ctx context.Context, pages *int) context.Context {
	return context.WithValue(ctx, pagesKey{}, pages)
}

func countPage(ctx context.Context) {
	if pages, ok := ctx.Value(pagesKey{}).(*int); ok {
		*pages++
	}
}
