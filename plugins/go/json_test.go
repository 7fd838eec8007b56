package main

import (
	"math"
	"testing"

	types "signalbus/imports/signalbus_plugin_types"
)

func TestAppendValue(t *testing.T) {
	for _, test := range []struct {
		value types.Value
		json  string
	}{
		{types.MakeValueNull(), `null`},
		{types.MakeValueBoolean(true), `true`},
		{types.MakeValueInt64(math.MinInt64), `-9223372036854775808`},
		{types.MakeValueInt64(9007199254740993), `9007199254740993`},
		{types.MakeValueFloat64(0.1), `0.1`},
		{types.MakeValueFloat64(5), `5`},
		{types.MakeValueFloat64(-2.5e-300), `-2.5e-300`},
		{types.MakeValueFloat64(math.NaN()), `null`},
		{types.MakeValueFloat64(math.Inf(-1)), `null`},
		{types.MakeValueDecimal("12.50"), `"12.50"`},
		{types.MakeValueText("\"\\/\b\f\n\r\t\x00\x1f\x7f\u2028 <żółć> 🦀"), `"\"\\/\b\f\n\r\t\u0000\u001f` + "\x7f\u2028 <żółć> 🦀\""},
		{types.MakeValueBytes(nil), `""`},
		{types.MakeValueBytes([]byte{255, 0, 0, 254}), `"/wAA/g=="`},
		{types.MakeValueJson(`{"a": [1, null]}`), `{"a": [1, null]}`},
		{types.MakeValueUuid("0198c7a4-0000-7000-8000-000000000001"), `"0198c7a4-0000-7000-8000-000000000001"`},
		{types.MakeValueDate("2026-02-28"), `"2026-02-28"`},
		{types.MakeValueTime("23:59:59.5"), `"23:59:59.5"`},
		{types.MakeValueDatetime("2026-02-28T23:59:59"), `"2026-02-28T23:59:59"`},
		{types.MakeValueTimestamp("2026-02-28T23:59:59Z"), `"2026-02-28T23:59:59Z"`},
		{types.MakeValueOther("{new,gift}"), `"{new,gift}"`},
	} {
		if json := string(appendValue(nil, test.value)); json != test.json {
			t.Errorf("%s, expected %s", json, test.json)
		}
	}
}

func TestAppendRow(t *testing.T) {
	columns := []types.Column{{Name: "b"}, {Name: `"a"`}}
	values := []types.Value{types.MakeValueInt64(1), types.MakeValueNull()}
	if json := string(appendRow(nil, columns, values)); json != `{"b":1,"\"a\"":null}` {
		t.Error(json)
	}
	if json := string(appendRow(nil, nil, nil)); json != `{}` {
		t.Error(json)
	}
}
