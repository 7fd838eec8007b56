// The contract of bindings/, in types of C++.
#pragma once

#include "bindings/bulk_sender_plugin.h"

#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

using Value = signalbus_plugin_types_value_t;
using Signal = signalbus_plugin_types_signal_t;
using SignalType = signalbus_plugin_types_signal_type_t;

struct Sent {};
struct Skip {};
struct Retry {
    std::string reason;
    std::optional<std::uint64_t> after_ms;
};
struct Reject {
    std::string reason;
};
using Outcome = std::variant<Sent, Skip, Retry, Reject>;
using Outcomes = std::vector<Outcome>;

struct Unavailable {
    Retry retry;
};
struct Misconfigured {
    std::string reason;
};
using Outage = std::variant<Unavailable, Misconfigured>;

template <typename T> using Result = std::expected<T, Outage>;

using Attributes = std::vector<std::pair<std::string_view, std::string_view>>;

struct Message {
    std::string_view connection;
    std::string_view destination;
    std::string_view content_type;
    std::string body;
    std::string_view id;
};

template <typename List> auto view(const List &list) { return std::span(list.ptr, list.len); }
std::string_view view(const bulk_sender_plugin_string_t &text);

std::optional<std::string> setting(std::string_view name);
std::optional<std::string> secret(std::string_view name);
void log_info(std::string_view message, const Attributes &fields);

// All messages carry the same headers.
Result<Outcomes> publish(std::span<const Message> messages, const Attributes &headers);

// What the plugin does: plugin.cpp.
Result<Outcomes> send(const SignalType &type, std::span<const Signal> signals);

[[noreturn]] void die(const char *reason);
