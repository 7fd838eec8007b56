//! Decides what becomes of each row, before anything is published.
const std = @import("std");
const contract = @import("contract.zig");
const c = contract.c;
const Outcome = contract.Outcome;
const slice = contract.slice;

const demanded = "the row asks for it";

const Demand = enum { skip, retry, reject, unavailable, misconfigured, panic };

/// Fills in one outcome per signal; `sent` stands for a row to be published. A row can demand
/// another outcome in the column of this name, if there is a name.
pub fn decideAll(
    outcome_column: ?contract.String,
    signal_type: contract.SignalType,
    signals: []const contract.Signal,
    outcomes: []Outcome,
    outage: *contract.Outage,
) error{Outage}!void {
    const name = outcome_column orelse return;
    const column = find(name, signal_type) orelse {
        outage.* = contract.misconfigured("setting \"outcome_column\" names an unknown column");
        return error.Outage;
    };
    for (signals, outcomes) |signal, *outcome| {
        outcome.* = try decide(demandOf(slice(signal.values)[column]), outage);
    }
}

fn decide(demand: ?Demand, outage: *contract.Outage) error{Outage}!Outcome {
    switch (demand orelse return .{ .tag = contract.sent }) {
        .skip => return .{ .tag = c.SIGNALBUS_PLUGIN_TYPES_OUTCOME_SKIP },
        .retry => return .{
            .tag = c.SIGNALBUS_PLUGIN_TYPES_OUTCOME_RETRY,
            .val = .{ .retry = later() },
        },
        .reject => return .{
            .tag = c.SIGNALBUS_PLUGIN_TYPES_OUTCOME_REJECT,
            .val = .{ .reject = contract.copy(demanded) },
        },
        .unavailable => outage.* = .{
            .tag = c.SIGNALBUS_PLUGIN_TYPES_OUTAGE_UNAVAILABLE,
            .val = .{ .unavailable = later() },
        },
        .misconfigured => outage.* = contract.misconfigured(demanded),
        .panic => @panic(demanded),
    }
    return error.Outage;
}

fn later() contract.Retry {
    return .{ .reason = contract.copy(demanded), .after_ms = .{ .is_some = true, .val = 1500 } };
}

/// The position of a column.
fn find(name: contract.String, signal_type: contract.SignalType) ?usize {
    for (slice(signal_type.columns), 0..) |column, position| {
        if (std.mem.eql(u8, slice(column.name), slice(name))) return position;
    }
    return null;
}

fn demandOf(value: contract.Value) ?Demand {
    if (value.tag != c.SIGNALBUS_PLUGIN_TYPES_VALUE_TEXT) return null;
    return std.meta.stringToEnum(Demand, slice(value.val.text));
}
