// Writes rows as JSON.
#pragma once

#include "contract.hpp"

// One object of all columns.
std::string json_row(const SignalType &type, const Signal &signal);
