// Publishes every row as one JSON message.
package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	wit "go.bytecodealliance.org/pkg/wit/types"
	config "signalbus/imports/signalbus_plugin_config"
	log "signalbus/imports/signalbus_plugin_log"
	producer "signalbus/imports/signalbus_plugin_producer"
	types "signalbus/imports/signalbus_plugin_types"
)

type (
	field  = wit.Tuple2[string, string]
	result = wit.Result[[]types.Outcome, types.Outage]
)

type target struct {
	connection, destination string
	headers                 []field
}

const asked = "the row asks for it"

func main() {} // Never called, but the linker asks for it.

func send(signalType types.SignalType, signals []types.Signal) result {
	connection := config.Get("connection")
	if connection.IsNone() {
		return fail(types.MakeOutageMisconfigured(`setting "connection" is missing`))
	}
	to := target{
		connection:  connection.Some(),
		destination: config.Get("destination").SomeOr(signalType.Name),
		headers:     []field{{F0: "signal-type", F1: signalType.Name}},
	}
	if token := config.GetSecret("token"); token.IsSome() {
		to.headers = append(to.headers, field{F0: "token", F1: token.Some()})
	}

	demands, known := outcomeColumn(signalType)
	if !known {
		return fail(types.MakeOutageMisconfigured(`setting "outcome_column" names an unknown column`))
	}
	// An outage answers for the whole call, so nothing is published before every row is decided.
	outcomes := make([]types.Outcome, len(signals))
	toPublish := make([]int, 0, len(signals))
	for i, signal := range signals {
		switch text(signal, demands) {
		case "skip":
			outcomes[i] = types.MakeOutcomeSkip()
		case "retry":
			outcomes[i] = types.MakeOutcomeRetry(later())
		case "reject":
			outcomes[i] = types.MakeOutcomeReject(asked)
		case "unavailable":
			return fail(types.MakeOutageUnavailable(later()))
		case "misconfigured":
			return fail(types.MakeOutageMisconfigured(asked))
		case "panic":
			panic(asked)
		default:
			toPublish = append(toPublish, i)
		}
	}

	if len(toPublish) > 0 {
		answer := to.publish(signalType, signals, toPublish)
		if answer.IsErr() {
			return answer
		}
		for n, i := range toPublish {
			outcomes[i] = answer.Ok()[n]
		}
		log.Emit(log.Level_Info, "published", []field{
			{F0: "signals", F1: strconv.Itoa(len(toPublish))},
			{F0: "destination", F1: to.destination},
		})
	}
	return wit.Ok[[]types.Outcome, types.Outage](outcomes)
}

// publish publishes the rows at the given positions, and returns an outcome for each.
func (to target) publish(signalType types.SignalType, signals []types.Signal, rows []int) result {
	messages := make([]types.Message, len(rows))
	var body []byte
	for n, i := range rows {
		body = appendRow(body[:0], signalType.Columns, signals[i].Values)
		messages[n] = types.Message{
			Connection:  to.connection,
			Destination: to.destination,
			ContentType: wit.Some("application/json"),
			Headers:     to.headers,
			Body:        bytes.Clone(body),
			Id:          wit.Some(signals[i].Id),
		}
	}
	answer := producer.Publish(messages)
	if answer.IsOk() && len(answer.Ok()) != len(messages) {
		panic(fmt.Sprintf("%d messages were answered with %d outcomes", len(messages), len(answer.Ok())))
	}
	return answer
}

func fail(outage types.Outage) result {
	return wit.Err[[]types.Outcome](outage)
}

func later() types.Retry {
	return types.Retry{Reason: asked, AfterMs: wit.Some[uint64](1500)}
}

// outcomeColumn returns the position of the column that the setting names, or -1 if it names none,
// and whether there is such a column.
func outcomeColumn(signalType types.SignalType) (position int, known bool) {
	name := config.Get("outcome_column")
	if name.IsNone() {
		return -1, true
	}
	position = slices.IndexFunc(signalType.Columns, func(c types.Column) bool { return c.Name == name.Some() })
	return position, position >= 0
}

// text returns the text in a column, or "" where there is none.
func text(signal types.Signal, column int) string {
	if column < 0 || signal.Values[column].Tag() != types.Value_Text {
		return ""
	}
	return signal.Values[column].Text()
}
