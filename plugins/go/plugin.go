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

const asked = "the row asks for it"

func main() {} // Never called, but the linker asks for it.

func send(signalType types.SignalType, signals []types.Signal) result {
	connection := config.Get("connection")
	if connection.IsNone() {
		return fail(types.MakeOutageMisconfigured(`setting "connection" is missing`))
	}
	destination := config.Get("destination").SomeOr(signalType.Name)

	// An outage answers for the whole call, so nothing is published before every row is decided.
	outcomes := make([]types.Outcome, len(signals))
	toPublish := make([]int, 0, len(signals))
	demands := column(signalType, "outcome")
decide:
	for i, signal := range signals {
		switch text(signal, demands) {
		case "skip":
			outcomes[i] = types.MakeOutcomeSkip()
		case "retry":
			outcomes[i] = types.MakeOutcomeRetry(later())
			if isOrdered(signalType) {
				for next := i + 1; next < len(signals); next++ {
					outcomes[next] = types.MakeOutcomeRetry(types.Retry{Reason: "held back"})
				}
				break decide
			}
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
	if len(toPublish) == 0 {
		return wit.Ok[[]types.Outcome, types.Outage](outcomes)
	}

	headers := []field{{F0: "signal-type", F1: signalType.Name}}
	if token := config.GetSecret("token"); token.IsSome() {
		headers = append(headers, field{F0: "token", F1: token.Some()})
	}
	messages := make([]types.Message, len(toPublish))
	var body []byte
	for n, i := range toPublish {
		body = appendRow(body[:0], signalType.Columns, signals[i].Values)
		messages[n] = types.Message{
			Connection:  connection.Some(),
			Destination: destination,
			ContentType: wit.Some("application/json"),
			Headers:     headers,
			Body:        bytes.Clone(body),
			Id:          wit.Some(signals[i].Id),
		}
	}

	published := producer.Publish(messages)
	if published.IsErr() {
		return published
	}
	answers := published.Ok()
	if len(answers) != len(messages) {
		panic(fmt.Sprintf("%d messages were answered with %d outcomes", len(messages), len(answers)))
	}
	for n, i := range toPublish {
		outcomes[i] = answers[n]
	}
	log.Emit(log.Level_Info, "published", []field{
		{F0: "signals", F1: strconv.Itoa(len(messages))},
		{F0: "destination", F1: destination},
	})
	return wit.Ok[[]types.Outcome, types.Outage](outcomes)
}

func fail(outage types.Outage) result {
	return wit.Err[[]types.Outcome](outage)
}

func later() types.Retry {
	return types.Retry{Reason: asked, AfterMs: wit.Some[uint64](1500)}
}

// column returns the position of a column, or -1.
func column(signalType types.SignalType, name string) int {
	return slices.IndexFunc(signalType.Columns, func(c types.Column) bool { return c.Name == name })
}

// text returns the text in a column, or "" where there is none.
func text(signal types.Signal, column int) string {
	if column < 0 || signal.Values[column].Tag() != types.Value_Text {
		return ""
	}
	return signal.Values[column].Text()
}

func isOrdered(signalType types.SignalType) bool {
	return slices.Contains(signalType.Attributes, field{F0: "ordered", F1: "true"})
}
