package faultproxy

import (
	"net/http"
	"strings"
)

// Operation is what a request asks of an S3 server.
type Operation string

// The operations.
const (
	GetObject      Operation = "get_object"
	HeadObject     Operation = "head_object"
	PutObject      Operation = "put_object"
	DeleteObject   Operation = "delete_object"
	DeleteObjects  Operation = "delete_objects"
	ListObjects    Operation = "list_objects"
	BucketLocation Operation = "get_bucket_location"
	CreateUpload   Operation = "create_multipart_upload"
	UploadPart     Operation = "upload_part"
	CompleteUpload Operation = "complete_multipart_upload"
	AbortUpload    Operation = "abort_multipart_upload"
	Other          Operation = "other"
)

// byParameter names the operations that a parameter of the query tells from the method's plain one.
func byParameter(method string) (plain Operation, special map[string]Operation) {
	switch method {
	case http.MethodGet:
		return GetObject, map[string]Operation{"list-type": ListObjects, "location": BucketLocation, "uploads": Other}
	case http.MethodHead:
		return HeadObject, nil
	case http.MethodPut:
		return PutObject, map[string]Operation{"partNumber": UploadPart}
	case http.MethodPost:
		return Other, map[string]Operation{"delete": DeleteObjects, "uploads": CreateUpload, "uploadId": CompleteUpload}
	case http.MethodDelete:
		return DeleteObject, map[string]Operation{"uploadId": AbortUpload}
	default:
		return Other, nil
	}
}

// isRead says whether an operation changes nothing.
func (op Operation) isRead() bool {
	switch op {
	case GetObject, HeadObject, ListObjects, BucketLocation:
		return true
	default:
		return false
	}
}

func operationOf(r *http.Request) Operation {
	op, special := byParameter(r.Method)
	q := r.URL.Query()
	for parameter, other := range special {
		if q.Has(parameter) {
			return other
		}
	}
	return op
}

// keyOf returns the object's key of a request in path style, /bucket/key, and "" when it is about the bucket.
func keyOf(r *http.Request) string {
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return key
}
