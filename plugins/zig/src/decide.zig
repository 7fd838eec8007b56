//! Decides what becomes of each row, before anything is published.
const std = @import("std");
const contract = @import("contract.zig");
const c = contract.c;
const Outcome = contract.Outcome;
const slice = contract.slice;

const demanded = "the row asks for it";

const Demand = enum { skip, retry, reject, unavailable, misconfigured, panic };

/// Fills in one outcome per signal; `sent` stands for a row to be published.
pub fn decideAll(
    signal_type: contract.SignalType,
    signals: []const contract.Signal,
    outcomes: []Outcome,
    outage: *contract.Outage,
) error{Outage}!void {
    for (signals, outcomes) |signal, *outcome| {
        outcome.* = try decide(demandOf(signal_type, signal), outage);
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

/// What the row's column `outcome` asks for.
fn demandOf(signal_type: contract.SignalType, signal: contract.Signal) ?Demand {
    for (slice(signal_type.columns), slice(signal.values)) |column, value| {
        if (value.tag == c.SIGNALBUS_PLUGIN_TYPES_VALUE_TEXT and
            std.mem.eql(u8, slice(column.name), "outcome"))
        {
            return std.meta.stringToEnum(Demand, slice(value.val.text));
        }
    }
    return null;
}
