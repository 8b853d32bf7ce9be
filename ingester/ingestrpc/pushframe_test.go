package ingestrpc

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

func TestTimeoutsAreRoundedUp(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{
		0: 0, 1: time.Millisecond, time.Millisecond: time.Millisecond, time.Second + 1: time.Second + time.Millisecond,
		100 * time.Hour: maxTimeout,
	} {
		d, err := openFrame(appendSection([]byte{pushVersion}, []byte("section"), given))
		require.NoError(t, err)
		section, timeout := nextSection(&d)
		require.NoError(t, d.Err())
		require.Equal(t, want, timeout)
		require.Equal(t, "section", string(section))
		require.False(t, d.More())
	}
}

// FuzzPushFrames: whatever comes, there is an end or an error.
func FuzzPushFrames(f *testing.F) {
	f.Add(appendSection([]byte{pushVersion}, []byte("section"), time.Second))
	frame := appendAnswer([]byte{pushVersion}, 7, []byte("verdict"), nil)
	f.Add(appendAnswer(frame, 8, nil, errkind.Wrap(errkind.Unavailable, errors.New("text"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := openFrame(data)
		if err != nil {
			return
		}
		answers := d
		for n := 0; d.More(); n++ {
			nextSection(&d)
			require.LessOrEqual(t, n, len(data))
		}
		for n := 0; answers.More(); n++ {
			a := nextAnswer(&answers)
			require.True(t, answers.Err() != nil || a.err != nil || a.verdict != nil)
			require.LessOrEqual(t, n, len(data))
		}
	})
}
