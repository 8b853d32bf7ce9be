package query

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/prometheus/common/model"

	"github.com/duramendb/duramen/cmd/duramenctl/ask"
)

// result is the answer of a query as the Prometheus API gives it.
type result struct {
	raw             []byte      // the whole body
	value           model.Value // Vector, Matrix, *Scalar or *String
	warnings, infos []string
}

// apiError is an error that the server reported, in Prometheus' words.
type apiError struct{ kind, text string }

func (e apiError) Error() string { return e.kind + ": " + e.text }

// decode reads the body of an answer. An answer that reports an error gives an apiError.
func decode(a ask.Answer) (result, error) {
	var envelope struct {
		Status    string
		Data      struct{ ResultType, Result json.RawMessage }
		ErrorType string
		Error     string
		Warnings  []string
		Infos     []string
	}
	if err := json.Unmarshal(a.Body, &envelope); err != nil || envelope.Status == "" {
		if a.Status == 200 {
			return result{}, errors.Join(errors.New("the answer is none of the Prometheus API: is the -url right?"), err)
		}
		return result{}, a.Error()
	}
	r := result{raw: a.Body, warnings: envelope.Warnings, infos: envelope.Infos}
	if envelope.Status != "success" {
		return r, apiError{envelope.ErrorType, envelope.Error}
	}
	var kind string
	if err := json.Unmarshal(envelope.Data.ResultType, &kind); err != nil {
		return r, fmt.Errorf("read the type of the answer: %w", err)
	}
	value, err := decodeValue(kind, envelope.Data.Result)
	if err != nil {
		return r, fmt.Errorf("read the answer, a %s: %w", kind, err)
	}
	r.value = value
	return r, nil
}

func decodeValue(kind string, data []byte) (model.Value, error) {
	switch kind {
	case "vector":
		var v model.Vector
		err := json.Unmarshal(data, &v)
		return v, err
	case "matrix":
		var v model.Matrix
		err := json.Unmarshal(data, &v)
		return v, err
	case "scalar":
		v := &model.Scalar{}
		err := json.Unmarshal(data, v)
		return v, err
	case "string":
		v := &model.String{}
		err := json.Unmarshal(data, v)
		return v, err
	default:
		return nil, errors.New("this type is not known")
	}
}

// empty reports whether the answer has no series.
func (r result) empty() bool {
	switch v := r.value.(type) {
	case model.Vector:
		return len(v) == 0
	case model.Matrix:
		return len(v) == 0
	default:
		return false
	}
}
