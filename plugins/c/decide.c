#include "decide.h"

static const char DEMANDED[] = "the row asks for it";

static retry_t demanded_retry(void) { return (retry_t){copy(DEMANDED), {true, 1500}}; }

outage_t misconfigured(const char *reason) {
    outage_t outage = {.tag = SIGNALBUS_PLUGIN_TYPES_OUTAGE_MISCONFIGURED};
    outage.val.misconfigured = copy(reason);
    return outage;
}

// Finds the column that the setting names; its position is `columns->len` if it names none.
// Returns false if there is no such column.
static bool find_outcome_column(const columns_t *columns, size_t *position) {
    string_t key = borrow("outcome_column"), name;
    *position = columns->len;
    if (!signalbus_plugin_config_get(&key, &name)) {
        return true;
    }
    for (size_t i = 0; i < columns->len; i++) {
        if (equals(columns->ptr[i].name, name)) {
            *position = i;
        }
    }
    bulk_sender_plugin_string_free(&name);
    return *position < columns->len;
}

// Returns the text in a column, if any.
static string_t text_of(const values_t *values, size_t column) {
    if (column < values->len && values->ptr[column].tag == SIGNALBUS_PLUGIN_TYPES_VALUE_TEXT) {
        return values->ptr[column].val.text;
    }
    return borrow("");
}

static bool decide_one(string_t demand, outcome_t *outcome, outage_t *outage) {
    outcome->tag = SENT;
    if (equals(demand, borrow("skip"))) {
        outcome->tag = SIGNALBUS_PLUGIN_TYPES_OUTCOME_SKIP;
    } else if (equals(demand, borrow("retry"))) {
        outcome->tag = SIGNALBUS_PLUGIN_TYPES_OUTCOME_RETRY;
        outcome->val.retry = demanded_retry();
    } else if (equals(demand, borrow("reject"))) {
        outcome->tag = SIGNALBUS_PLUGIN_TYPES_OUTCOME_REJECT;
        outcome->val.reject = copy(DEMANDED);
    } else if (equals(demand, borrow("unavailable"))) {
        outage->tag = SIGNALBUS_PLUGIN_TYPES_OUTAGE_UNAVAILABLE;
        outage->val.unavailable = demanded_retry();
        return false;
    } else if (equals(demand, borrow("misconfigured"))) {
        *outage = misconfigured(DEMANDED);
        return false;
    } else if (equals(demand, borrow("panic"))) {
        die(DEMANDED);
    }
    return true;
}

bool decide(const signal_type_t *type, const signals_t *signals, outcomes_t outcomes,
            outage_t *outage) {
    size_t column;
    if (!find_outcome_column(&type->columns, &column)) {
        *outage = misconfigured("setting \"outcome_column\" names an unknown column");
        return false;
    }
    for (size_t i = 0; i < signals->len; i++) {
        string_t demand = text_of(&signals->ptr[i].values, column);
        if (!decide_one(demand, &outcomes.ptr[i], outage)) {
            return false;
        }
    }
    return true;
}
