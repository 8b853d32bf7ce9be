package ingestrpc

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/internal/tracing"
)

func TestTimeoutsAreRoundedUp(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{
		0: 0, 1: time.Millisecond, time.Millisecond: time.Millisecond, time.Second + 1: time.Second + time.Millisecond,
		100 * time.Hour: maxTimeout,
	} {
		d, version, err := openFrame(appendSection([]byte{pushVersion}, []byte("section"), given, tracing.Parent{1}), pushVersion)
		require.NoError(t, err)
		s := nextSection(&d, version)
		require.NoError(t, d.Err())
		require.Equal(t, want, s.timeout)
		require.Equal(t, "section", string(s.section))
		require.Zero(t, s.parent, "the version has no room for it")
		require.False(t, d.More())
	}
}

func TestTracedFrames(t *testing.T) {
	parents := []tracing.Parent{{1, 23: 24}, {}, {2}}
	frame := []byte{tracedVersion}
	for _, p := range parents {
		frame = appendSection(frame, []byte("section"), time.Second, p)
	}
	d, version, err := openFrame(frame, tracedVersion)
	require.NoError(t, err)
	for _, p := range parents {
		require.Equal(t, sentSection{[]byte("section"), time.Second, p}, nextSection(&d, version))
	}
	require.NoError(t, d.Err())
	require.False(t, d.More())

	_, _, err = openFrame(frame, pushVersion)
	require.ErrorIs(t, err, duramenpb.ErrVersion)
	require.ErrorContains(t, err, "2, this release speaks 1")
	frame[3] = 2 // neither traced nor untraced; the two bytes before are the timeout
	d, version, err = openFrame(frame, tracedVersion)
	require.NoError(t, err)
	nextSection(&d, version)
	require.ErrorIs(t, d.Err(), rpcframe.ErrCut)
}

func TestWhatAServerSpeaks(t *testing.T) {
	for said, want := range map[string]byte{
		"": pushVersion, "1": pushVersion, "2": tracedVersion, "3": tracedVersion, "999": pushVersion, "x": pushVersion,
	} {
		require.Equal(t, want, speaks(metadata.Pairs(versionKey, said)), said)
	}
	require.EqualValues(t, pushVersion, speaks(nil))
	require.EqualValues(t, pushVersion, speaks(metadata.Pairs(versionKey, "2", versionKey, "2")))
}

// FuzzPushFrames: whatever comes, there is an end or an error.
func FuzzPushFrames(f *testing.F) {
	f.Add(appendSection([]byte{pushVersion}, []byte("section"), time.Second, tracing.Parent{}))
	f.Add(appendSection([]byte{tracedVersion}, []byte("section"), time.Second, tracing.Parent{7}))
	frame := appendAnswer([]byte{pushVersion}, 7, []byte("verdict"), nil)
	f.Add(appendAnswer(frame, 8, nil, errkind.Wrap(errkind.Unavailable, errors.New("text"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, version, err := openFrame(data, tracedVersion)
		if err != nil {
			return
		}
		answers := d
		for n := 0; d.More(); n++ {
			nextSection(&d, version)
			require.LessOrEqual(t, n, len(data))
		}
		for n := 0; answers.More(); n++ {
			a := nextAnswer(&answers)
			require.True(t, answers.Err() != nil || a.err != nil || a.verdict != nil)
			require.LessOrEqual(t, n, len(data))
		}
	})
}
