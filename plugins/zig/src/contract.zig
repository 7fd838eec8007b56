//! Short names for the types of the bindings.
const std = @import("std");
pub const c = @import("bindings");

pub const String = c.bulk_sender_plugin_string_t;
pub const Attribute = c.bulk_sender_plugin_tuple2_string_string_t;
pub const Attributes = c.signalbus_plugin_types_attributes_t;
pub const Value = c.signalbus_plugin_types_value_t;
pub const SignalType = c.signalbus_plugin_types_signal_type_t;
pub const Signal = c.signalbus_plugin_types_signal_t;
pub const Signals = c.exports_signalbus_plugin_bulk_sender_list_signal_t;
pub const Message = c.signalbus_plugin_types_message_t;
pub const Retry = c.signalbus_plugin_types_retry_t;
pub const Outcome = c.signalbus_plugin_types_outcome_t;
pub const Outcomes = c.exports_signalbus_plugin_bulk_sender_list_outcome_t;
pub const Outage = c.signalbus_plugin_types_outage_t;

pub const sent = c.SIGNALBUS_PLUGIN_TYPES_OUTCOME_SENT;

pub const Error = error{ Outage, OutOfMemory };

/// The bindings free what the plugin answers with C's `free`.
pub const allocator = std.heap.c_allocator;

/// A slice of any list or string of the bindings.
pub fn slice(list: anytype) []std.meta.Child(@TypeOf(list.ptr)) {
    return if (list.len == 0) &.{} else list.ptr[0..list.len];
}

/// For arguments of imported functions, which only borrow.
pub fn borrow(text: []const u8) String {
    if (text.len == 0) return .{}; // An empty slice may have an address outside of the memory.
    return .{ .ptr = @constCast(text.ptr), .len = text.len };
}

/// For what the plugin answers.
pub fn copy(text: []const u8) String {
    var string: String = undefined;
    c.bulk_sender_plugin_string_dup_n(&string, text.ptr, text.len);
    return string;
}

pub fn misconfigured(reason: []const u8) Outage {
    return .{
        .tag = c.SIGNALBUS_PLUGIN_TYPES_OUTAGE_MISCONFIGURED,
        .val = .{ .misconfigured = copy(reason) },
    };
}
