// Publishes each row as one JSON message.
#include "json.hpp"

namespace {

constexpr const char *demanded = "the row asks for it";
constexpr std::uint64_t retry_after_ms = 1500;

// Returns the position of the column that the setting names, if it is set.
Result<std::optional<std::size_t>> outcome_column(const SignalType &type) {
    const std::optional<std::string> name = setting("outcome_column");
    if (!name) {
        return std::nullopt;
    }
    for (std::size_t i = 0; i < type.columns.len; i++) {
        if (view(type.columns.ptr[i].name) == *name) {
            return i;
        }
    }
    return std::unexpected(Misconfigured{"setting \"outcome_column\" names an unknown column"});
}

// Returns the text in a column, if any.
std::string_view text_of(const Signal &signal, std::optional<std::size_t> column) {
    if (!column || signal.values.ptr[*column].tag != SIGNALBUS_PLUGIN_TYPES_VALUE_TEXT) {
        return {};
    }
    return view(signal.values.ptr[*column].val.text);
}

// Decides the outcome of a row; `Sent` stands for a row to be published.
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

Result<Outcomes> decide_all(const SignalType &type, std::span<const Signal> signals) {
    const Result<std::optional<std::size_t>> column = outcome_column(type);
    if (!column) {
        return std::unexpected(column.error());
    }
    Outcomes outcomes(signals.size());
    for (std::size_t i = 0; i < signals.size(); i++) {
        Result<Outcome> outcome = decide(text_of(signals[i], *column));
        if (!outcome) {
            return std::unexpected(outcome.error());
        }
        outcomes[i] = *std::move(outcome);
    }
    return outcomes;
}

struct Target {
    std::string connection;
    std::string destination;
    Attributes headers;
};

// Replaces the outcome of each published row with that of its message; returns their number.
Result<std::size_t> publish_all(const SignalType &type, std::span<const Signal> signals,
                                const Target &target, Outcomes &outcomes) {
    std::vector<Message> messages;
    for (std::size_t i = 0; i < signals.size(); i++) {
        if (std::holds_alternative<Sent>(outcomes[i])) {
            messages.push_back({target.connection, target.destination, "application/json",
                                json_row(type, signals[i]), view(signals[i].id)});
        }
    }
    if (messages.empty()) {
        return 0;
    }
    Result<Outcomes> answers = publish(messages, target.headers);
    if (!answers) {
        return std::unexpected(answers.error());
    }
    if (answers->size() != messages.size()) {
        die("the bus has answered for another number of messages");
    }
    auto answer = answers->begin();
    for (Outcome &outcome : outcomes) {
        if (std::holds_alternative<Sent>(outcome)) {
            outcome = std::move(*answer++);
        }
    }
    return messages.size();
}

} // namespace

Result<Outcomes> send(const SignalType &type, std::span<const Signal> signals) {
    const std::optional<std::string> connection = setting("connection");
    if (!connection) {
        return std::unexpected(Misconfigured{"setting \"connection\" is missing"});
    }
    Target target{*connection,
                  setting("destination").value_or(std::string(view(type.name))),
                  {{"signal-type", view(type.name)}}};
    const std::optional<std::string> token = secret("token");
    if (token) {
        target.headers.emplace_back("token", *token);
    }

    Result<Outcomes> outcomes = decide_all(type, signals);
    if (!outcomes) {
        return outcomes;
    }
    const Result<std::size_t> published = publish_all(type, signals, target, *outcomes);
    if (!published) {
        return std::unexpected(published.error());
    }
    if (*published > 0) {
        log_info("published",
                 {{"signals", std::to_string(*published)}, {"destination", target.destination}});
    }
    return outcomes;
}
