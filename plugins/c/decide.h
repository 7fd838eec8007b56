// Decides what becomes of each row, before anything is published.
#ifndef DECIDE_H
#define DECIDE_H

#include "names.h"

outage_t misconfigured(const char *reason);

// Whether nothing may be published past a row that is to be retried.
bool is_ordered(const signal_type_t *type);

// Answers `retry` for the signals from `first` on, whatever was decided of them.
void hold_back(outcomes_t outcomes, size_t first);

// Fills in one outcome per signal; `sent` stands for a row to be published.
// False is an outage, and answers for the whole call.
bool decide(const signal_type_t *type, const signals_t *signals, outcomes_t outcomes,
            outage_t *outage);

#endif
