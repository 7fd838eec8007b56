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

	// An outage answers for the whole call, so nothing is published before every row is decided.
	outcomes := make([]types.Outcome, len(signals))
	toPublish := make([]int, 0, len(signals))
	demands := column(signalType, "outcome")
	ordered := isOrdered(signalType)
decide:
	for i, signal := range signals {
		switch text(signal, demands) {
		case "skip":
			outcomes[i] = types.MakeOutcomeSkip()
		case "retry":
			outcomes[i] = types.MakeOutcomeRetry(later())
			if ordered {
				holdBack(outcomes[i+1:])
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

	// Where order counts, the bus must accept a message before it sees the next one.
	size := max(len(toPublish), 1)
	if ordered {
		size = 1
	}
	published := 0
	for chunk := range slices.Chunk(toPublish, size) {
		answer := to.publish(signalType, signals, chunk)
		if answer.IsErr() {
			if published == 0 {
				return answer
			}
			holdBack(outcomes[chunk[0]:])
			break
		}
		published += len(chunk)
		for n, i := range chunk {
			outcomes[i] = answer.Ok()[n]
		}
		if last := chunk[len(chunk)-1]; ordered && outcomes[last].Tag() == types.Outcome_Retry {
			holdBack(outcomes[last+1:])
			break
		}
	}
	if published > 0 {
		log.Emit(log.Level_Info, "published", []field{
			{F0: "signals", F1: strconv.Itoa(published)},
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

// holdBack answers for rows that have to wait for an earlier one, whatever they ask for.
func holdBack(outcomes []types.Outcome) {
	for i := range outcomes {
		outcomes[i] = types.MakeOutcomeRetry(types.Retry{Reason: "held back"})
	}
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
