// Decides what becomes of each row, before anything is published.
#ifndef DECIDE_H
#define DECIDE_H

#include "names.h"

outage_t misconfigured(const char *reason);

// Fills in one outcome per signal; `sent` stands for a row to be published.
// Returns false for an outage, which answers for the whole call.
bool decide(const signal_type_t *type, const signals_t *signals, outcomes_t outcomes,
            outage_t *outage);

#endif
