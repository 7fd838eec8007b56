// Short names for the types of the bindings.
#ifndef NAMES_H
#define NAMES_H

#include "bindings/bulk_sender_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef bulk_sender_plugin_string_t string_t;
typedef bulk_sender_plugin_list_u8_t bytes_t;
typedef bulk_sender_plugin_tuple2_string_string_t attribute_t;
typedef signalbus_plugin_types_attributes_t attributes_t;
typedef signalbus_plugin_types_value_t value_t;
typedef signalbus_plugin_types_list_value_t values_t;
typedef signalbus_plugin_types_list_column_t columns_t;
typedef signalbus_plugin_types_signal_type_t signal_type_t;
typedef signalbus_plugin_types_signal_t signal_t;
typedef exports_signalbus_plugin_bulk_sender_list_signal_t signals_t;
typedef signalbus_plugin_types_message_t message_t;
typedef signalbus_plugin_producer_list_message_t messages_t;
typedef signalbus_plugin_types_retry_t retry_t;
typedef signalbus_plugin_types_outcome_t outcome_t;
typedef signalbus_plugin_producer_list_outcome_t answers_t;
typedef exports_signalbus_plugin_bulk_sender_list_outcome_t outcomes_t;
typedef signalbus_plugin_types_outage_t outage_t;

enum { SENT = SIGNALBUS_PLUGIN_TYPES_OUTCOME_SENT };

_Noreturn static inline void die(const char *reason) {
    fprintf(stderr, "%s\n", reason);
    abort();
}

// A string that borrows `text`. Whatever is passed to an imported function may be borrowed.
static inline string_t borrow(const char *text) {
    return (string_t){(uint8_t *)text, strlen(text)};
}

// A string of its own. The plugin's answers need such strings: the bindings free them.
static inline string_t copy(const char *text) {
    string_t string;
    bulk_sender_plugin_string_dup(&string, text);
    return string;
}

static inline bool equals(string_t a, string_t b) {
    return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
}

#endif
