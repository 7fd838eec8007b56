#include "decide.h"

static const char DEMANDED[] = "the row asks for it";

static retry_t demanded_retry(void) { return (retry_t){copy(DEMANDED), {true, 1500}}; }

outage_t misconfigured(const char *reason) {
    outage_t outage = {.tag = SIGNALBUS_PLUGIN_TYPES_OUTAGE_MISCONFIGURED};
    outage.val.misconfigured = copy(reason);
    return outage;
}

bool is_ordered(const signal_type_t *type) {
    for (size_t i = 0; i < type->attributes.len; i++) {
        if (equals(type->attributes.ptr[i].f0, "ordered")) {
            return equals(type->attributes.ptr[i].f1, "true");
        }
    }
    return false;
}

void hold_back(outcomes_t outcomes, size_t first) {
    for (size_t i = first; i < outcomes.len; i++) {
        signalbus_plugin_types_outcome_free(&outcomes.ptr[i]);
        outcomes.ptr[i].tag = RETRY;
        outcomes.ptr[i].val.retry = (retry_t){copy("held back"), {false, 0}};
    }
}

// The text in the row's column `outcome`, if there is any.
static string_t demand_of(const signal_type_t *type, const signal_t *signal) {
    for (size_t i = 0; i < signal->values.len; i++) {
        if (equals(type->columns.ptr[i].name, "outcome") &&
            signal->values.ptr[i].tag == SIGNALBUS_PLUGIN_TYPES_VALUE_TEXT) {
            return signal->values.ptr[i].val.text;
        }
    }
    return borrow("");
}

static bool decide_one(string_t demand, outcome_t *outcome, outage_t *outage) {
    outcome->tag = SENT;
    if (equals(demand, "skip")) {
        outcome->tag = SIGNALBUS_PLUGIN_TYPES_OUTCOME_SKIP;
    } else if (equals(demand, "retry")) {
        outcome->tag = RETRY;
        outcome->val.retry = demanded_retry();
    } else if (equals(demand, "reject")) {
        outcome->tag = SIGNALBUS_PLUGIN_TYPES_OUTCOME_REJECT;
        outcome->val.reject = copy(DEMANDED);
    } else if (equals(demand, "unavailable")) {
        outage->tag = SIGNALBUS_PLUGIN_TYPES_OUTAGE_UNAVAILABLE;
        outage->val.unavailable = demanded_retry();
        return false;
    } else if (equals(demand, "misconfigured")) {
        *outage = misconfigured(DEMANDED);
        return false;
    } else if (equals(demand, "panic")) {
        die(DEMANDED);
    }
    return true;
}

bool decide(const signal_type_t *type, const signals_t *signals, outcomes_t outcomes,
            outage_t *outage) {
    bool ordered = is_ordered(type);
    for (size_t i = 0; i < signals->len; i++) {
        if (!decide_one(demand_of(type, &signals->ptr[i]), &outcomes.ptr[i], outage)) {
            return false;
        }
        if (ordered && outcomes.ptr[i].tag == RETRY) {
            hold_back(outcomes, i + 1);
            break;
        }
    }
    return true;
}
