// Package s3 owns the bucket that an S3 server keeps: Amazon's, or any other that speaks its protocol, conditional
// puts (If-None-Match) included. It refuses to guess: an answer that is cut short, that no S3 server would give or
// that leaves a key unmentioned is an error, and what may have happened is never reported as not having happened. Read
// package bucket for the promises, and put.go, answer.go and retry.go here for how they are kept.
//
// # Permissions
//
// The credentials need these actions, on AWS as a policy with the two resources arn:aws:s3:::BUCKET and
// arn:aws:s3:::BUCKET/*:
//
//	s3:GetObject, s3:PutObject, s3:DeleteObject   on the objects
//	s3:AbortMultipartUpload                       on the objects, to clean up after a failed upload
//	s3:ListBucket                                 on the bucket; without it a missing object is reported as forbidden
//	s3:GetBucketLocation                          on the bucket, only when no region is configured
//	kms:GenerateDataKey, kms:Decrypt              on the key, only with sse SSE-KMS
//
// Buckets are not created. Give the bucket a lifecycle rule that aborts incomplete multipart uploads after a day: a
// process that is killed in mid-upload leaves parts behind that no listing shows and that are paid for. Do not set
// rules that expire objects; retention is the compactor's.
//
// # What it asks of the server
//
// A PutObject with "If-None-Match: *" must fail when the key exists; bucket.Probe finds out. Listings must be in order
// of keys, which general purpose buckets of AWS do and directory buckets (S3 Express) do not; List fails on the
// latter. Google's storage ignores If-None-Match in its S3 interface and is not supported.
//
// # Requests
//
// Get and GetRange are one request, except that a range of length zero is a Stat. Stat is one request, and two when
// the object is missing, for the answer to HEAD cannot tell a missing object from a missing bucket. Put is one request
// up to part-size-bytes and otherwise parts + 2. PutIfAbsent is one request, always. List is one for each 1000
// entries, Delete one for each 1000 keys. All but PutIfAbsent are tried up to four times when trying again may help.
// Without a region the first operation asks for it once.
//
// # Memory
//
// Bodies that are read are streams. Bodies that are written wait in memory until the server has acknowledged them,
// part-size-bytes at a time and at most upload-buffer-bytes for all uploads together (64 MiB); more uploads than that
// queue up. PutIfAbsent copies its argument. A listing holds one page, 16 MiB at the very most.
package s3
