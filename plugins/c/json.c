#include "json.h"

#include <inttypes.h>
#include <math.h>

typedef struct {
    uint8_t *data;
    size_t length;
    size_t capacity;
} buffer_t;

// Makes room for `more` bytes and returns where they go.
static uint8_t *reserve(buffer_t *out, size_t more) {
    if (out->capacity - out->length < more) {
        size_t capacity = out->capacity < 128 ? 256 : out->capacity * 2;
        if (capacity - out->length < more) {
            capacity = out->length + more;
        }
        out->data = realloc(out->data, capacity);
        if (out->data == NULL) {
            die("out of memory");
        }
        out->capacity = capacity;
    }
    return out->data + out->length;
}

static void append(buffer_t *out, const void *data, size_t length) {
    if (length > 0) {
        memcpy(reserve(out, length), data, length);
        out->length += length;
    }
}

static void append_text(buffer_t *out, const char *text) { append(out, text, strlen(text)); }

static void append_escape(buffer_t *out, uint8_t character) {
    char escape[8];
    bool is_control = character < 0x20;
    snprintf(escape, sizeof escape, is_control ? "\\u%04x" : "\\%c", character);
    append_text(out, escape);
}

static void append_string(buffer_t *out, string_t text) {
    size_t start = 0;
    append_text(out, "\"");
    for (size_t i = 0; i < text.len; i++) {
        uint8_t character = text.ptr[i];
        if (character < 0x20 || character == '"' || character == '\\') {
            append(out, text.ptr + start, i - start);
            append_escape(out, character);
            start = i + 1;
        }
    }
    append(out, text.ptr + start, text.len - start);
    append_text(out, "\"");
}

static void append_base64(buffer_t *out, bytes_t bytes) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    append_text(out, "\"");
    size_t length = (bytes.len + 2) / 3 * 4;
    uint8_t *to = reserve(out, length);
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t left = bytes.len - i;
        uint32_t group = (uint32_t)bytes.ptr[i] << 16;
        group |= left > 1 ? (uint32_t)bytes.ptr[i + 1] << 8 : 0;
        group |= left > 2 ? bytes.ptr[i + 2] : 0;
        *to++ = digits[group >> 18];
        *to++ = digits[group >> 12 & 63];
        *to++ = left > 1 ? digits[group >> 6 & 63] : '=';
        *to++ = left > 2 ? digits[group & 63] : '=';
    }
    out->length += length;
    append_text(out, "\"");
}

static void append_double(buffer_t *out, double number) {
    if (!isfinite(number)) {
        append_text(out, "null"); // JSON has neither NaN nor infinities.
        return;
    }
    char text[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number) {
            break;
        }
    }
    append_text(out, text);
}

static void append_value(buffer_t *out, const value_t *value) {
    char number[32];
    switch (value->tag) {
    case SIGNALBUS_PLUGIN_TYPES_VALUE_NULL:
        append_text(out, "null");
        break;
    case SIGNALBUS_PLUGIN_TYPES_VALUE_BOOLEAN:
        append_text(out, value->val.boolean ? "true" : "false");
        break;
    case SIGNALBUS_PLUGIN_TYPES_VALUE_INT64:
        snprintf(number, sizeof number, "%" PRId64, value->val.int64);
        append_text(out, number);
        break;
    case SIGNALBUS_PLUGIN_TYPES_VALUE_FLOAT64:
        append_double(out, value->val.float64);
        break;
    case SIGNALBUS_PLUGIN_TYPES_VALUE_BYTES:
        append_base64(out, value->val.bytes);
        break;
    case SIGNALBUS_PLUGIN_TYPES_VALUE_JSON:
        append(out, value->val.json.ptr, value->val.json.len);
        break;
    default:
        append_string(out, value->val.text); // All other cases are strings.
    }
}

bytes_t json_row(const columns_t *columns, const values_t *values) {
    buffer_t out = {NULL, 0, 0};
    append_text(&out, "{");
    for (size_t i = 0; i < values->len; i++) {
        append_text(&out, i > 0 ? "," : "");
        append_string(&out, columns->ptr[i].name);
        append_text(&out, ":");
        append_value(&out, &values->ptr[i]);
    }
    append_text(&out, "}");
    return (bytes_t){out.data, out.length};
}
