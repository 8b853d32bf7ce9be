package ingestrpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/internal/tracing"
)

// Versions are the first byte of frames of pushes. The layout is in ../docs/push-protocol.md.
const (
	// pushVersion is that of frames both ways.
	pushVersion = 1
	// tracedVersion is that of frames to a server, and only to one that has said that it reads it, in which sections may say
	// to which traces they belong.
	tracedVersion = 2
	// versionKey is the key of the metadata by which a server says, at the begin of a stream, up to which version it reads.
	versionKey = "duramen-push-frames"
)

const (
	// pushService and pushName make PushMethod.
	pushService = "duramen.IngesterPush"
	pushName    = "Push"
	// PushMethod is the full name of the call that carries push frames. One stream carries sections of many tenants, each
	// named and validated by itself: an interceptor that wants a tenant in the metadata has to let this call pass.
	PushMethod = "/" + pushService + "/" + pushName
)

// Kinds of answers.
const (
	answerStored = 0 // a verdict follows
	answerError  = 1 // an error follows
)

// Whether a section of a frame of tracedVersion has a parent.
const (
	untraced = 0
	traced   = 1 // the parent follows
)

// maxTimeout bounds the time that a section may be given; it is as good as none.
const maxTimeout = time.Hour

// appendSection appends a section to a push frame, the first byte of which says its version. timeout is how long its sender
// waits, 0 for ever; parent is the span that sends it, which frames of pushVersion do not carry.
func appendSection(frame, section []byte, timeout time.Duration, parent tracing.Parent) []byte {
	if timeout > 0 { // rounded up, for 0 is for ever
		timeout = min(timeout, maxTimeout) + time.Millisecond - 1
	}
	frame = binary.AppendUvarint(frame, uint64(timeout.Milliseconds()))
	if frame[0] >= tracedVersion {
		if parent == (tracing.Parent{}) {
			frame = append(frame, untraced)
		} else {
			frame = append(append(frame, traced), parent[:]...)
		}
	}
	frame = binary.AppendUvarint(frame, uint64(len(section)))
	return append(frame, section...)
}

// sentSection is what nextSection reads. section aliases the frame.
type sentSection struct {
	section []byte
	timeout time.Duration
	parent  tracing.Parent
}

// nextSection reads a section of a push frame of a version.
func nextSection(d *rpcframe.Decoder, version byte) (s sentSection) {
	s.timeout = time.Duration(d.Number(int((maxTimeout + time.Second).Milliseconds()))) * time.Millisecond
	if version >= tracedVersion {
		switch d.Byte() {
		case untraced:
		case traced:
			copy(s.parent[:], d.Bytes(len(s.parent)))
		default:
			d.Fail()
		}
	}
	s.section = d.Bytes(d.Number(duramenpb.MaxSectionBytes))
	return s
}

// appendAnswer appends an answer to a frame: verdict is what duramenpb.AppendResult made, when err is nil.
func appendAnswer(frame []byte, number uint64, verdict []byte, err error) []byte {
	frame = binary.AppendUvarint(frame, number)
	if err != nil {
		frame = append(frame, answerError)
		frame = rpcframe.AppendText(frame, errkind.Of(err).String())
		frame = binary.AppendUvarint(frame, uint64(min(max(0, errkind.RetryAfter(err).Milliseconds()), math.MaxInt32)))
		return rpcframe.AppendText(frame, err.Error())
	}
	frame = append(frame, answerStored)
	frame = binary.AppendUvarint(frame, uint64(len(verdict)))
	return append(frame, verdict...)
}

// pushAnswer is what nextAnswer reads. verdict aliases the frame and is nil when there is an error.
type pushAnswer struct {
	number  uint64
	verdict []byte
	err     error
}

func nextAnswer(d *rpcframe.Decoder) (a pushAnswer) {
	a.number = d.Uvarint()
	switch d.Byte() {
	case answerStored:
		a.verdict = d.Bytes(d.Number(math.MaxInt32))
	case answerError:
		e := errkind.Error{Kind: errkind.Named(d.Text())}
		e.RetryAfter = time.Duration(d.Number(math.MaxInt32)) * time.Millisecond
		e.Err = errors.New(d.Text())
		a.err = &e
	default:
		d.Fail()
	}
	return a
}

// openFrame returns a decoder of what is behind the version, which is newest at most.
func openFrame(frame []byte, newest byte) (d rpcframe.Decoder, version byte, err error) {
	d = rpcframe.NewDecoder(frame)
	switch version = d.Byte(); {
	case d.Err() != nil:
		return d, 0, d.Err()
	case version < pushVersion || version > newest:
		return d, 0, fmt.Errorf("push frame of %w %d, this release speaks %d", duramenpb.ErrVersion, version, newest)
	}
	return d, version, nil
}

// speaks returns up to which version a server reads frames, by what it said at the begin of a stream. One of a release
// that knows only pushVersion says nothing.
func speaks(said metadata.MD) byte {
	if v := said.Get(versionKey); len(v) == 1 {
		if n, err := strconv.ParseUint(v[0], 10, 8); err == nil && n >= tracedVersion {
			return tracedVersion
		}
	}
	return pushVersion
}
