package identity

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
)

func TestCreate(t *testing.T) {
	b := bucket.NewInMemory()
	id, err := Find(t.Context(), b)
	require.NoError(t, err)
	require.Empty(t, id)

	first, err := Create(t.Context(), b, time.UnixMilli(7))
	require.NoError(t, err)
	second, err := Create(t.Context(), b, time.UnixMilli(8))
	require.NoError(t, err)
	require.Equal(t, first, second, "who comes first gives it")
	require.Equal(t, `{"id":"`+first+`","created_at":7}`+"\n", buckettest.Get(t, b, Key))
	id, err = Find(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, first, id)
}

// TestCreateWhoseAnswerIsLost: the object decides.
func TestCreateWhoseAnswerIsLost(t *testing.T) {
	b := faultbucket.New(bucket.NewInMemory(), faultbucket.On("PutIfAbsent", faultbucket.After))
	id, err := Create(t.Context(), b, time.Now())
	require.NoError(t, err)
	found, err := Find(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, found, id)

	b = faultbucket.New(bucket.NewInMemory(), faultbucket.On("PutIfAbsent", faultbucket.Before))
	_, err = Create(t.Context(), b, time.Now())
	require.ErrorIs(t, err, faultbucket.ErrInjected)
}

func TestCopy(t *testing.T) {
	src, dst := bucket.NewInMemory(), bucket.NewInMemory()
	from, to, err := Copy(t.Context(), src, dst)
	require.NoError(t, err)
	require.Empty(t, from+to, "of a release before this one")

	id, err := Create(t.Context(), src, time.Now())
	require.NoError(t, err)
	for range 2 { // it can be repeated
		from, to, err = Copy(t.Context(), src, dst)
		require.NoError(t, err)
		require.Equal(t, []string{id, id}, []string{from, to})
	}
	require.Equal(t, buckettest.Get(t, src, Key), buckettest.Get(t, dst, Key))

	own := bucket.NewInMemory()
	other, err := Create(t.Context(), own, time.Now())
	require.NoError(t, err)
	from, to, err = Copy(t.Context(), src, own)
	require.NoError(t, err)
	require.Equal(t, []string{id, other}, []string{from, to}, "it stays what it is")

	_, _, err = Copy(t.Context(), src, faultbucket.New(bucket.NewInMemory(), faultbucket.On("PutIfAbsent", faultbucket.Before)))
	require.ErrorIs(t, err, faultbucket.ErrInjected)
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"id":"ABC","created_at":1}`, `{"id":"ABC","later":{}}`, `{"id":""}`, `{"id":"a b"}`, `{}`, `[]`, ``, "{\"id\":\"\u00e9\"}",
		`{"id":"` + strings.Repeat("a", 65) + `"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		id, err := decode(data)
		if err != nil {
			return
		}
		require.Regexp(t, `^[A-Za-z0-9-]{1,64}$`, id)
		again, err := decode(encode(id, time.UnixMilli(1)))
		require.NoError(t, err)
		require.Equal(t, id, again)
	})
}
