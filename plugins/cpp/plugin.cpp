// Publishes each row as one JSON message.
#include "json.hpp"

namespace {

constexpr const char *demanded = "the row asks for it";
constexpr std::uint64_t retry_after_ms = 1500;

// The text in the row's column `outcome`, if there is any.
std::string_view demand_of(const SignalType &type, const Signal &signal) {
    for (std::size_t i = 0; i < signal.values.len; i++) {
        const Value &value = signal.values.ptr[i];
        if (view(type.columns.ptr[i].name) == "outcome" &&
            value.tag == SIGNALBUS_PLUGIN_TYPES_VALUE_TEXT) {
            return view(value.val.text);
        }
    }
    return {};
}

// What becomes of a row; `Sent` stands for one to be published.
Result<Outcome> decide(std::string_view demand) {
    if (demand == "skip") {
        return Skip{};
    }
    if (demand == "retry") {
        return Retry{demanded, retry_after_ms};
    }
    if (demand == "reject") {
        return Reject{demanded};
    }
    if (demand == "unavailable") {
        return std::unexpected(Unavailable{{demanded, retry_after_ms}});
    }
    if (demand == "misconfigured") {
        return std::unexpected(Misconfigured{demanded});
    }
    if (demand == "panic") {
        die(demanded);
    }
    return Sent{};
}

bool is_ordered(const SignalType &type) {
    for (const auto &[name, value] : view(type.attributes)) {
        if (view(name) == "ordered") {
            return view(value) == "true";
        }
    }
    return false;
}

Result<Outcomes> decide_all(const SignalType &type, std::span<const Signal> signals) {
    const bool ordered = is_ordered(type);
    Outcomes outcomes;
    outcomes.reserve(signals.size());
    for (const Signal &signal : signals) {
        Result<Outcome> outcome = decide(demand_of(type, signal));
        if (!outcome) {
            return std::unexpected(outcome.error());
        }
        outcomes.push_back(*std::move(outcome));
        if (ordered && std::holds_alternative<Retry>(outcomes.back())) {
            outcomes.resize(signals.size(), Retry{"held back", std::nullopt});
            break;
        }
    }
    return outcomes;
}

} // namespace

Result<Outcomes> send(const SignalType &type, std::span<const Signal> signals) {
    const std::optional<std::string> connection = setting("connection");
    if (!connection) {
        return std::unexpected(Misconfigured{"setting \"connection\" is missing"});
    }
    const std::string destination = setting("destination").value_or(std::string(view(type.name)));
    const std::optional<std::string> token = secret("token");
    Attributes headers{{"signal-type", view(type.name)}};
    if (token) {
        headers.emplace_back("token", *token);
    }

    Result<Outcomes> outcomes = decide_all(type, signals);
    if (!outcomes) {
        return outcomes;
    }
    std::vector<Message> messages;
    for (std::size_t i = 0; i < signals.size(); i++) {
        if (std::holds_alternative<Sent>((*outcomes)[i])) {
            messages.push_back({*connection, destination, "application/json",
                                json_row(type, signals[i]), view(signals[i].id)});
        }
    }
    if (messages.empty()) {
        return outcomes;
    }

    Result<Outcomes> answers = publish(messages, headers);
    if (!answers) {
        return answers;
    }
    if (answers->size() != messages.size()) {
        die("the bus has answered for another number of messages");
    }
    log_info("published",
             {{"signals", std::to_string(messages.size())}, {"destination", destination}});

    auto answer = answers->begin();
    for (Outcome &outcome : *outcomes) {
        if (std::holds_alternative<Sent>(outcome)) {
            outcome = std::move(*answer++);
        }
    }
    return outcomes;
}
