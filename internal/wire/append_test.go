package wire_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"resource-lock-manager/internal/wire"
)

// shapes are the data of responses: appenders, and types that must not be mistaken for
// one.
var shapes = []any{
	&wire.Success[wire.Acquired]{},
	&wire.Success[wire.Released]{},
	&wire.Success[wire.Renewed]{},
	&wire.Success[wire.Status]{},
	&wire.Conflict{},
	&wire.Hold{},
	&wire.Lock{},
	&wire.Success[wire.AllLocked]{},
	&wire.Success[wire.ForceReleased]{},
	&wire.Success[wire.History]{},
	&wire.Success[wire.Queue]{},
	&wire.Success[wire.ReleasedAll]{},
	&wire.Success[wire.RenewedAll]{},
	&wire.Success[wire.Validity]{},
	&wire.Failure{},
	&wire.ValidationFailure{},
	&wire.Health{},
	&wire.Probe{},
}

// TestAppendIsEncodingJSON: the output is byte-identical to that of encoding/json for
// every type, passed by address or by value.
func TestAppendIsEncodingJSON(t *testing.T) {
	for _, shape := range shapes {
		t.Run(reflect.TypeOf(shape).Elem().Name(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				value := reflect.New(reflect.TypeOf(shape).Elem())
				fill(t, value.Elem())
				const before = "before "
				want := before + byEncodingJSON(t, value.Interface())
				for _, given := range []any{value.Interface(), value.Elem().Interface()} {
					if got := string(wire.Append([]byte(before), given)); got != want {
						t.Fatalf("got  %s\nwant %s", got, want)
					}
				}
			})
		})
	}
}

func byEncodingJSON(t *rapid.T, value any) string {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
}

var (
	texts = rapid.OneOf(
		rapid.SampledFrom([]string{
			"", "database_backup", "deploy/web", "it's", `"\`, "<&>", "🔒 ü 漢",
			"a\u2028b\u2029", "\x00\t\n\x1f ~\x7f", "\xff",
		}),
		rapid.String(),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
	)
	floats = rapid.OneOf(
		rapid.SampledFrom([]float64{
			0, 1, 30, 299.876544, 1e-6, 0.000999, 3155760000, 3155759999.999999, 9.9e-7, 1e20,
			1e21, 1e22, -0.5,
		}),
		rapid.Float64(),
	)
	times = rapid.OneOf(
		rapid.SampledFrom([]time.Time{
			{},
			time.Date(2024, 1, 15, 10, 30, 0, 123456000, time.UTC),
			time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
		}),
		rapid.Map(rapid.Int64Range(-1<<40, 1<<55),
			func(n int64) time.Time { return time.UnixMicro(n).In(time.FixedZone("", 5400)) }),
	)
	objects = rapid.SampledFrom([]string{
		`{}`, `{"url":"https://ci.example/77?a&b"}`,
		" { \"a\" : [ 1 , 2.50, null ],\n\"\u2028\" : \"<\\u003c \" } ",
	})
)

// fill draws a value for every field.
func fill(t *rapid.T, v reflect.Value) {
	switch field := v.Addr().Interface().(type) {
	case *wire.Time:
		*field = wire.Time(times.Draw(t, "at"))
		return
	case *json.RawMessage:
		if rapid.Bool().Draw(t, "object") {
			*field = json.RawMessage(objects.Draw(t, "object"))
		}
		return
	case *any:
		*field = texts.Draw(t, "any")
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "not nil") {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem())
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(t, v.Index(i))
		}
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "int"))
	case reflect.Float64:
		v.SetFloat(floats.Draw(t, "float"))
	case reflect.String:
		v.SetString(texts.Draw(t, "text"))
	default:
		t.Fatalf("no values for %s", v.Type())
	}
}

// TestTimeHasOneFormat: UTC, six fractional digits and a numeric zone, as package time
// formats it with this layout.
func TestTimeHasOneFormat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := times.Draw(t, "at")
		want := at.UTC().Format(`"2006-01-02T15:04:05.000000-07:00"`)
		if got, err := wire.Time(at).MarshalJSON(); err != nil || string(got) != want {
			t.Fatalf("got %s and the error %v, want %s", got, err, want)
		}
	})
}
