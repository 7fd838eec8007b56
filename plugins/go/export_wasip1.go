package main

import (
	sender "signalbus/exports/export_signalbus_plugin_bulk_sender"
	_ "signalbus/exports/wit_exports"
)

func init() { sender.Send = send }
