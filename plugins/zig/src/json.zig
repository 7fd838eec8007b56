//! Writes rows as JSON.
const std = @import("std");
const contract = @import("contract.zig");
const c = contract.c;
const slice = contract.slice;

/// One object of all columns.
pub fn writeRow(
    writer: *std.Io.Writer,
    signal_type: contract.SignalType,
    values: []const contract.Value,
) std.Io.Writer.Error!void {
    var json: std.json.Stringify = .{ .writer = writer };
    try json.beginObject();
    for (slice(signal_type.columns), values) |column, value| {
        try json.objectField(slice(column.name));
        try writeValue(&json, value);
    }
    try json.endObject();
}

fn writeValue(json: *std.json.Stringify, value: contract.Value) std.Io.Writer.Error!void {
    switch (value.tag) {
        c.SIGNALBUS_PLUGIN_TYPES_VALUE_NULL => try json.write(null),
        c.SIGNALBUS_PLUGIN_TYPES_VALUE_BOOLEAN => try json.write(value.val.boolean),
        c.SIGNALBUS_PLUGIN_TYPES_VALUE_INT64 => try json.write(value.val.int64),
        c.SIGNALBUS_PLUGIN_TYPES_VALUE_FLOAT64 => {
            const number = value.val.float64;
            // JSON has neither NaN nor infinities.
            try json.write(if (std.math.isFinite(number)) number else null);
        },
        c.SIGNALBUS_PLUGIN_TYPES_VALUE_BYTES => {
            try json.beginWriteRaw();
            try json.writer.writeByte('"');
            try std.base64.standard.Encoder.encodeWriter(json.writer, slice(value.val.bytes));
            try json.writer.writeByte('"');
            json.endWriteRaw();
        },
        c.SIGNALBUS_PLUGIN_TYPES_VALUE_JSON => {
            try json.beginWriteRaw();
            try json.writer.writeAll(slice(value.val.json));
            json.endWriteRaw();
        },
        // All other cases are strings.
        else => try json.write(slice(value.val.text)),
    }
}
