#include "decide.h"

static const char DEMANDED[] = "the row asks for it";

static retry_t demanded_retry(void) { return (retry_t){copy(DEMANDED), {true, 1500}}; }

outage_t misconfigured(const char *reason) {
    outage_t outage = {.tag = SIGNALBUS_PLUGIN_TYPES_OUTAGE_MISCONFIGURED};
    outage.val.misconfigured = copy(reason);
    return outage;
}

// Returns the text in the row's column `outcome`, if any.
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
        outcome->tag = SIGNALBUS_PLUGIN_TYPES_OUTCOME_RETRY;
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
    for (size_t i = 0; i < signals->len; i++) {
        if (!decide_one(demand_of(type, &signals->ptr[i]), &outcomes.ptr[i], outage)) {
            return false;
        }
    }
    return true;
}
