package export_signalbus_plugin_bulk_sender

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Go's collector reads the clock, and doing so while the relay writes into the plugin's memory is a trap.
// So it never starts by itself, but after a call, once the heap has grown by this many bytes.
const collectAfter = 4 << 20

var (
	heapSize = []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	heapLeft uint64 // by the last collection
)

func init() { debug.SetGCPercent(-1) }

func collectGarbage() {
	if readHeapSize() < heapLeft+collectAfter {
		return
	}
	runtime.GC()
	heapLeft = readHeapSize()
}

func readHeapSize() uint64 {
	metrics.Read(heapSize)
	return heapSize[0].Value.Uint64()
}
