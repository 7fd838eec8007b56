// Package export_signalbus_plugin_bulk_sender leads the relay's calls to the plugin.
// It is written by hand; bindings/exports/wit_exports calls it.
package export_signalbus_plugin_bulk_sender

import (
	wit "go.bytecodealliance.org/pkg/wit/types"
	types "signalbus/imports/signalbus_plugin_types"
)

// Send is the plugin's own function.
var Send func(signalType types.SignalType, signals []types.Signal) wit.Result[[]types.Outcome, types.Outage]

// SendSignalbusMessages is what the relay calls.
func SendSignalbusMessages(signalType types.SignalType, signals []types.Signal) wit.Result[[]types.Outcome, types.Outage] {
	defer collectGarbage()
	return Send(signalType, signals)
}
