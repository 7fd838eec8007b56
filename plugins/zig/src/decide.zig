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
    const ordered = isOrdered(signal_type);
    for (signals, outcomes, 1..) |signal, *outcome, next| {
        outcome.* = try decide(demandOf(signal_type, signal), outage);
        if (ordered and outcome.tag == contract.retry) return holdBack(outcomes[next..]);
    }
}

/// Answers `retry`, whatever was decided before.
pub fn holdBack(outcomes: []Outcome) void {
    for (outcomes) |*outcome| {
        c.signalbus_plugin_types_outcome_free(outcome);
        outcome.* = retry("held back", null);
    }
}

fn decide(demand: ?Demand, outage: *contract.Outage) error{Outage}!Outcome {
    switch (demand orelse return .{ .tag = contract.sent }) {
        .skip => return .{ .tag = c.SIGNALBUS_PLUGIN_TYPES_OUTCOME_SKIP },
        .retry => return retry(demanded, 1500),
        .reject => return .{
            .tag = c.SIGNALBUS_PLUGIN_TYPES_OUTCOME_REJECT,
            .val = .{ .reject = contract.copy(demanded) },
        },
        .unavailable => outage.* = .{
            .tag = c.SIGNALBUS_PLUGIN_TYPES_OUTAGE_UNAVAILABLE,
            .val = .{ .unavailable = retry(demanded, 1500).val.retry },
        },
        .misconfigured => outage.* = contract.misconfigured(demanded),
        .panic => @panic(demanded),
    }
    return error.Outage;
}

fn retry(reason: []const u8, after_ms: ?u64) Outcome {
    return .{
        .tag = contract.retry,
        .val = .{ .retry = .{
            .reason = contract.copy(reason),
            .after_ms = .{ .is_some = after_ms != null, .val = after_ms orelse 0 },
        } },
    };
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

/// Whether nothing may be published past a row that is to be retried.
pub fn isOrdered(signal_type: contract.SignalType) bool {
    for (slice(signal_type.attributes)) |attribute| {
        if (std.mem.eql(u8, slice(attribute.f0), "ordered")) {
            return std.mem.eql(u8, slice(attribute.f1), "true");
        }
    }
    return false;
}
