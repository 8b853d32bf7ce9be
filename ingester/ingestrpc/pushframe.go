package ingestrpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
)

// pushVersion is the first byte of frames of pushes, both ways. The layout is in ../docs/push-protocol.md.
const pushVersion = 1

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

// maxTimeout bounds the time that a section may be given; it is as good as none.
const maxTimeout = time.Hour

// appendSection appends a section to a push frame. timeout is how long its sender waits, 0 for ever.
func appendSection(frame, section []byte, timeout time.Duration) []byte {
	if timeout > 0 { // rounded up, for 0 is for ever
		timeout = min(timeout, maxTimeout) + time.Millisecond - 1
	}
	frame = binary.AppendUvarint(frame, uint64(timeout.Milliseconds()))
	frame = binary.AppendUvarint(frame, uint64(len(section)))
	return append(frame, section...)
}

// nextSection reads a section of a push frame; it aliases the frame.
func nextSection(d *rpcframe.Decoder) (section []byte, timeout time.Duration) {
	timeout = time.Duration(d.Number(int((maxTimeout + time.Second).Milliseconds()))) * time.Millisecond
	return d.Bytes(d.Number(duramenpb.MaxSectionBytes)), timeout
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

// openFrame returns a decoder of what is behind the version.
func openFrame(frame []byte) (rpcframe.Decoder, error) {
	d := rpcframe.NewDecoder(frame)
	switch v := d.Byte(); {
	case d.Err() != nil:
		return d, d.Err()
	case v != pushVersion:
		return d, fmt.Errorf("push frame of %w %d, this release speaks %d", duramenpb.ErrVersion, v, pushVersion)
	}
	return d, nil
}
