// Publishes each row as one JSON message.
#include "decide.h"
#include "json.h"

typedef struct {
    string_t connection;
    string_t destination;
    attributes_t headers;
} target_t;

static bool get_setting(const char *name, string_t *value) {
    string_t key = borrow(name);
    return signalbus_plugin_config_get(&key, value);
}

static bool get_secret(const char *name, string_t *value) {
    string_t key = borrow(name);
    return signalbus_plugin_config_get_secret(&key, value);
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL) {
        die("out of memory");
    }
    return memory;
}

static message_t message_of(const signal_type_t *type, const signal_t *signal,
                            const target_t *target) {
    return (message_t){
        .connection = target->connection,
        .destination = target->destination,
        .content_type = {true, borrow("application/json")},
        .headers = target->headers,
        .body = json_row(&type->columns, &signal->values),
        .id = {true, signal->id},
    };
}

static void log_published(size_t count, string_t destination) {
    char number[24];
    snprintf(number, sizeof number, "%zu", count);
    attribute_t fields[] = {{borrow("signals"), borrow(number)},
                            {borrow("destination"), destination}};
    attributes_t list = {fields, 2};
    string_t message = borrow("published");
    signalbus_plugin_log_emit(SIGNALBUS_PLUGIN_LOG_LEVEL_INFO, &message, &list);
}

static bool publish(messages_t *messages, answers_t *answers, outage_t *outage) {
    if (messages->len == 0) {
        return true;
    }
    if (!signalbus_plugin_producer_publish(messages, answers, outage)) {
        return false;
    }
    if (answers->len != messages->len) {
        die("the bus has answered for another number of messages");
    }
    return true;
}

// Replaces the outcome of each published row with that of its message.
static bool publish_all(const signal_type_t *type, const signals_t *signals, const target_t *target,
                        outcomes_t outcomes, outage_t *outage) {
    messages_t messages = {allocate(signals->len, sizeof(message_t)), 0};
    for (size_t i = 0; i < signals->len; i++) {
        if (outcomes.ptr[i].tag == SENT) {
            messages.ptr[messages.len++] = message_of(type, &signals->ptr[i], target);
        }
    }

    answers_t answers = {NULL, 0};
    bool published = publish(&messages, &answers, outage);
    for (size_t i = 0, next = 0; i < signals->len && next < answers.len; i++) {
        if (outcomes.ptr[i].tag == SENT) {
            outcomes.ptr[i] = answers.ptr[next++]; // Its strings move with it.
        }
    }
    if (answers.len > 0) {
        log_published(answers.len, target->destination);
    }
    free(answers.ptr);

    for (size_t i = 0; i < messages.len; i++) {
        free(messages.ptr[i].body.ptr); // The rest is borrowed.
    }
    free(messages.ptr);
    return published;
}

static bool send(const signal_type_t *type, const signals_t *signals, const target_t *target,
                 outcomes_t *outcomes, outage_t *outage) {
    *outcomes = (outcomes_t){NULL, 0};
    if (signals->len == 0) {
        return true;
    }
    *outcomes = (outcomes_t){allocate(signals->len, sizeof(outcome_t)), signals->len};
    if (decide(type, signals, *outcomes, outage) &&
        publish_all(type, signals, target, *outcomes, outage)) {
        return true;
    }
    exports_signalbus_plugin_bulk_sender_list_outcome_free(outcomes);
    return false;
}

static bool configure_and_send(const signal_type_t *type, const signals_t *signals,
                               outcomes_t *outcomes, outage_t *outage) {
    string_t connection, destination, token;
    if (!get_setting("connection", &connection)) {
        *outage = misconfigured("setting \"connection\" is missing");
        return false;
    }
    bool has_destination = get_setting("destination", &destination);
    bool has_token = get_secret("token", &token);

    attribute_t headers[] = {{borrow("signal-type"), type->name}, {borrow("token"), token}};
    target_t target = {
        .connection = connection,
        .destination = has_destination ? destination : type->name,
        .headers = {headers, has_token ? 2 : 1},
    };
    bool sent = send(type, signals, &target, outcomes, outage);

    bulk_sender_plugin_string_free(&connection);
    if (has_destination) {
        bulk_sender_plugin_string_free(&destination);
    }
    if (has_token) {
        bulk_sender_plugin_string_free(&token);
    }
    return sent;
}

bool exports_signalbus_plugin_bulk_sender_send_signalbus_messages(signal_type_t *type,
                                                                  signals_t *signals,
                                                                  outcomes_t *outcomes,
                                                                  outage_t *outage) {
    bool sent = configure_and_send(type, signals, outcomes, outage);
    // The arguments belong to the plugin.
    exports_signalbus_plugin_bulk_sender_signal_type_free(type);
    exports_signalbus_plugin_bulk_sender_list_signal_free(signals);
    return sent;
}
