//! Publishes each row as one JSON message.
const std = @import("std");
const contract = @import("contract.zig");
const decide = @import("decide.zig");
const json = @import("json.zig");
const c = contract.c;
const Attribute = contract.Attribute;
const Message = contract.Message;
const Outage = contract.Outage;
const Outcome = contract.Outcome;
const Signal = contract.Signal;
const SignalType = contract.SignalType;
const borrow = contract.borrow;
const slice = contract.slice;

/// The relay shows the last line on standard error.
pub const panic = std.debug.FullPanic(struct {
    fn panic(message: []const u8, _: ?usize) noreturn {
        _ = std.c.write(2, message.ptr, message.len);
        @trap();
    }
}.panic);

export fn exports_signalbus_plugin_bulk_sender_send_signalbus_messages(
    signal_type: *SignalType,
    signals: *contract.Signals,
    outcomes: *contract.Outcomes,
    outage: *Outage,
) bool {
    // The arguments belong to the plugin.
    defer c.exports_signalbus_plugin_bulk_sender_signal_type_free(signal_type);
    defer c.exports_signalbus_plugin_bulk_sender_list_signal_free(signals);

    const result = send(signal_type.*, slice(signals), outage) catch |err| switch (err) {
        error.Outage => return false,
        error.OutOfMemory => @panic("out of memory"),
    };
    // An empty slice may have an address outside of the memory.
    outcomes.* = if (result.len == 0) .{} else .{ .ptr = result.ptr, .len = result.len };
    return true;
}

fn send(signal_type: SignalType, signals: []const Signal, outage: *Outage) contract.Error![]Outcome {
    var arena_state: std.heap.ArenaAllocator = .init(contract.allocator);
    defer arena_state.deinit();
    const arena = arena_state.allocator();

    const connection = try get(arena, c.signalbus_plugin_config_get, "connection") orelse {
        outage.* = contract.misconfigured("setting \"connection\" is missing");
        return error.Outage;
    };
    const destination = try get(arena, c.signalbus_plugin_config_get, "destination");
    const outcome_column = try get(arena, c.signalbus_plugin_config_get, "outcome_column");
    const token = try get(arena, c.signalbus_plugin_config_get_secret, "token");
    var headers = [_]Attribute{
        .{ .f0 = borrow("signal-type"), .f1 = signal_type.name },
        .{ .f0 = borrow("token"), .f1 = token orelse borrow("") },
    };
    const template: Message = .{
        .connection = connection,
        .destination = destination orelse signal_type.name,
        .content_type = .{ .is_some = true, .val = borrow("application/json") },
        .headers = .{ .ptr = &headers, .len = if (token == null) 1 else 2 },
    };

    const outcomes = try contract.allocator.alloc(Outcome, signals.len);
    @memset(outcomes, .{ .tag = contract.sent });
    errdefer {
        for (outcomes) |*outcome| c.signalbus_plugin_types_outcome_free(outcome);
        contract.allocator.free(outcomes);
    }
    try decide.decideAll(outcome_column, signal_type, signals, outcomes, outage);
    try publishAll(arena, template, signal_type, signals, outcomes, outage);
    return outcomes;
}

/// Asks the relay for a setting or secret.
fn get(
    arena: std.mem.Allocator,
    getter: *const @TypeOf(c.signalbus_plugin_config_get),
    name: []const u8,
) error{OutOfMemory}!?contract.String {
    var key = borrow(name);
    var value: contract.String = undefined;
    if (!getter(&key, &value)) return null;
    defer c.bulk_sender_plugin_string_free(&value);
    return borrow(try arena.dupe(u8, slice(value)));
}

/// Publishes the rows that are `sent` so far, and replaces their outcomes with those of the messages.
fn publishAll(
    arena: std.mem.Allocator,
    template: Message,
    signal_type: SignalType,
    signals: []const Signal,
    outcomes: []Outcome,
    outage: *Outage,
) contract.Error!void {
    var body: std.Io.Writer.Allocating = .init(contract.allocator);
    defer body.deinit();
    var messages: std.ArrayList(Message) = try .initCapacity(arena, signals.len);
    for (signals, outcomes) |signal, outcome| {
        if (outcome.tag != contract.sent) continue;
        body.clearRetainingCapacity();
        json.writeRow(&body.writer, signal_type, slice(signal.values)) catch return error.OutOfMemory;
        const text = try arena.dupe(u8, body.written());
        var message = template;
        message.body = .{ .ptr = text.ptr, .len = text.len };
        message.id = .{ .is_some = true, .val = signal.id };
        messages.appendAssumeCapacity(message);
    }
    if (messages.items.len == 0) return;

    const answers = try publish(messages.items, outage);
    defer std.c.free(answers.ptr);
    var next: usize = 0;
    for (outcomes) |*outcome| {
        if (outcome.tag != contract.sent) continue;
        outcome.* = answers[next]; // Its strings move with it.
        next += 1;
    }
    logPublished(next, template.destination);
}

fn publish(messages: []Message, outage: *Outage) error{Outage}![]Outcome {
    var list: c.signalbus_plugin_producer_list_message_t = .{ .ptr = messages.ptr, .len = messages.len };
    var answers: c.signalbus_plugin_producer_list_outcome_t = undefined;
    if (!c.signalbus_plugin_producer_publish(&list, &answers, outage)) return error.Outage;
    if (answers.len != messages.len) @panic("the bus has answered for another number of messages");
    return slice(answers);
}

fn logPublished(count: usize, destination: contract.String) void {
    var buffer: [20]u8 = undefined;
    const number = std.fmt.bufPrint(&buffer, "{d}", .{count}) catch unreachable;
    var fields = [_]Attribute{
        .{ .f0 = borrow("signals"), .f1 = borrow(number) },
        .{ .f0 = borrow("destination"), .f1 = destination },
    };
    var list: contract.Attributes = .{ .ptr = &fields, .len = fields.len };
    var message = borrow("published");
    c.signalbus_plugin_log_emit(c.SIGNALBUS_PLUGIN_LOG_LEVEL_INFO, &message, &list);
}
