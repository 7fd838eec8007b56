#include "contract.hpp"

#include <cstdio>
#include <cstdlib>

namespace {

using String = bulk_sender_plugin_string_t;
using CRetry = signalbus_plugin_types_retry_t;
using COutcome = signalbus_plugin_types_outcome_t;
using COutage = signalbus_plugin_types_outage_t;
using CAttributes = signalbus_plugin_types_attributes_t;

// Arguments of imported functions are only borrowed.
String borrow(std::string_view text) {
    return {reinterpret_cast<std::uint8_t *>(const_cast<char *>(text.data())), text.size()};
}

// What the plugin answers is freed by the bindings.
String copy(std::string_view text) {
    String string;
    bulk_sender_plugin_string_dup_n(&string, text.data(), text.size());
    return string;
}

auto borrow(const Attributes &attributes) {
    std::vector<bulk_sender_plugin_tuple2_string_string_t> list;
    for (const auto &[name, value] : attributes) {
        list.push_back({borrow(name), borrow(value)});
    }
    return list;
}

Retry from_c(const CRetry &retry) {
    Retry result{std::string(view(retry.reason)), std::nullopt};
    if (retry.after_ms.is_some) {
        result.after_ms = retry.after_ms.val;
    }
    return result;
}

Outcome from_c(const COutcome &outcome) {
    switch (outcome.tag) {
    case SIGNALBUS_PLUGIN_TYPES_OUTCOME_SENT:
        return Sent{};
    case SIGNALBUS_PLUGIN_TYPES_OUTCOME_SKIP:
        return Skip{};
    case SIGNALBUS_PLUGIN_TYPES_OUTCOME_RETRY:
        return from_c(outcome.val.retry);
    default:
        return Reject{std::string(view(outcome.val.reject))};
    }
}

Outage from_c(const COutage &outage) {
    if (outage.tag == SIGNALBUS_PLUGIN_TYPES_OUTAGE_UNAVAILABLE) {
        return Unavailable{from_c(outage.val.unavailable)};
    }
    return Misconfigured{std::string(view(outage.val.misconfigured))};
}

CRetry to_c(const Retry &retry) {
    return {copy(retry.reason), {retry.after_ms.has_value(), retry.after_ms.value_or(0)}};
}

COutcome to_c(const Outcome &outcome) {
    COutcome result{};
    // The variant has the order of the tags.
    result.tag = static_cast<std::uint8_t>(outcome.index());
    if (const auto *retry = std::get_if<Retry>(&outcome)) {
        result.val.retry = to_c(*retry);
    } else if (const auto *reject = std::get_if<Reject>(&outcome)) {
        result.val.reject = copy(reject->reason);
    }
    return result;
}

COutage to_c(const Outage &outage) {
    COutage result{};
    result.tag = static_cast<std::uint8_t>(outage.index());
    if (const auto *unavailable = std::get_if<Unavailable>(&outage)) {
        result.val.unavailable = to_c(unavailable->retry);
    } else {
        result.val.misconfigured = copy(std::get<Misconfigured>(outage).reason);
    }
    return result;
}

using Getter = bool(String *, String *);

std::optional<std::string> get(Getter *getter, std::string_view name) {
    String key = borrow(name);
    String value;
    if (!getter(&key, &value)) {
        return std::nullopt;
    }
    std::string result(view(value));
    bulk_sender_plugin_string_free(&value);
    return result;
}

} // namespace

std::string_view view(const String &text) {
    return {reinterpret_cast<const char *>(text.ptr), text.len};
}

std::optional<std::string> setting(std::string_view name) {
    return get(signalbus_plugin_config_get, name);
}

std::optional<std::string> secret(std::string_view name) {
    return get(signalbus_plugin_config_get_secret, name);
}

void log_info(std::string_view message, const Attributes &fields) {
    auto list = borrow(fields);
    String text = borrow(message);
    CAttributes c_fields{list.data(), list.size()};
    signalbus_plugin_log_emit(SIGNALBUS_PLUGIN_LOG_LEVEL_INFO, &text, &c_fields);
}

Result<Outcomes> publish(std::span<const Message> messages, const Attributes &headers) {
    auto header_list = borrow(headers);
    std::vector<signalbus_plugin_types_message_t> list;
    list.reserve(messages.size());
    for (const Message &message : messages) {
        String body = borrow(message.body);
        list.push_back({
            .connection = borrow(message.connection),
            .destination = borrow(message.destination),
            .key = {},
            .content_type = {true, borrow(message.content_type)},
            .headers = {header_list.data(), header_list.size()},
            .body = {body.ptr, body.len},
            .id = {true, borrow(message.id)},
            .options = {},
        });
    }

    signalbus_plugin_producer_list_message_t arguments{list.data(), list.size()};
    signalbus_plugin_producer_list_outcome_t answers;
    COutage c_outage;
    if (!signalbus_plugin_producer_publish(&arguments, &answers, &c_outage)) {
        Outage outage = from_c(c_outage);
        signalbus_plugin_producer_outage_free(&c_outage);
        return std::unexpected(std::move(outage));
    }
    Outcomes outcomes;
    outcomes.reserve(answers.len);
    for (const COutcome &answer : view(answers)) {
        outcomes.push_back(from_c(answer));
    }
    signalbus_plugin_producer_list_outcome_free(&answers);
    return outcomes;
}

void die(const char *reason) {
    std::fprintf(stderr, "%s\n", reason);
    std::abort();
}

bool exports_signalbus_plugin_bulk_sender_send_signalbus_messages(
    SignalType *type, exports_signalbus_plugin_bulk_sender_list_signal_t *signals,
    exports_signalbus_plugin_bulk_sender_list_outcome_t *outcomes, COutage *outage) {
    Result<Outcomes> result = send(*type, view(*signals));
    exports_signalbus_plugin_bulk_sender_signal_type_free(type);
    exports_signalbus_plugin_bulk_sender_list_signal_free(signals);
    if (!result) {
        *outage = to_c(result.error());
        return false;
    }
    *outcomes = {nullptr, result->size()};
    if (!result->empty()) {
        outcomes->ptr = static_cast<COutcome *>(std::malloc(result->size() * sizeof(COutcome)));
        if (outcomes->ptr == nullptr) {
            die("out of memory");
        }
    }
    for (std::size_t i = 0; i < result->size(); i++) {
        outcomes->ptr[i] = to_c((*result)[i]);
    }
    return true;
}
