package main

import (
	"encoding/base64"
	"encoding/json/jsontext"
	"math"
	"strconv"

	types "signalbus/imports/signalbus_plugin_types"
)

// appendRow appends a row as a JSON object, with its columns in their order.
func appendRow(json []byte, columns []types.Column, values []types.Value) []byte {
	json = append(json, '{')
	for i, value := range values {
		if i > 0 {
			json = append(json, ',')
		}
		json = appendString(json, columns[i].Name)
		json = append(json, ':')
		json = appendValue(json, value)
	}
	return append(json, '}')
}

func appendValue(json []byte, value types.Value) []byte {
	switch value.Tag() {
	case types.Value_Null:
		return append(json, "null"...)
	case types.Value_Boolean:
		return strconv.AppendBool(json, value.Boolean())
	case types.Value_Int64:
		return strconv.AppendInt(json, value.Int64(), 10)
	case types.Value_Float64:
		return appendFloat(json, value.Float64())
	case types.Value_Bytes:
		json = append(json, '"')
		json = base64.StdEncoding.AppendEncode(json, value.Bytes())
		return append(json, '"')
	case types.Value_Json:
		return append(json, value.Json()...)
	case types.Value_Decimal:
		return appendString(json, value.Decimal())
	case types.Value_Text:
		return appendString(json, value.Text())
	case types.Value_Uuid:
		return appendString(json, value.Uuid())
	case types.Value_Date:
		return appendString(json, value.Date())
	case types.Value_Time:
		return appendString(json, value.Time())
	case types.Value_Datetime:
		return appendString(json, value.Datetime())
	case types.Value_Timestamp:
		return appendString(json, value.Timestamp())
	default:
		return appendString(json, value.Other())
	}
}

// appendFloat appends a number, or null if JSON cannot represent it.
func appendFloat(json []byte, value float64) []byte {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return append(json, "null"...)
	}
	return strconv.AppendFloat(json, value, 'g', -1, 64)
}

func appendString(json []byte, text string) []byte {
	json, _ = jsontext.AppendQuote(json, text) // Fails only on invalid UTF-8, which never gets here.
	return json
}
