// Writes rows as JSON.
#ifndef JSON_H
#define JSON_H

#include "names.h"

// One object of all columns. The caller frees `ptr`.
bytes_t json_row(const columns_t *columns, const values_t *values);

#endif
