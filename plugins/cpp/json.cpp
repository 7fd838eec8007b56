#include "json.hpp"

#include <charconv>
#include <cmath>

namespace {

void append_string(std::string &out, std::string_view text) {
    constexpr std::string_view hex = "0123456789abcdef";
    std::size_t start = 0;
    out += '"';
    for (std::size_t i = 0; i < text.size(); i++) {
        auto character = static_cast<unsigned char>(text[i]);
        if (character >= 0x20 && character != '"' && character != '\\') {
            continue;
        }
        out += text.substr(start, i - start);
        start = i + 1;
        if (character < 0x20) {
            out += "\\u00";
            out += hex[character >> 4];
            out += hex[character & 15];
        } else {
            out += '\\';
            out += text[i];
        }
    }
    out += text.substr(start);
    out += '"';
}

void append_base64(std::string &out, std::span<const std::uint8_t> bytes) {
    constexpr std::string_view digits =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out += '"';
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        std::size_t left = bytes.size() - i;
        unsigned second = left > 1 ? bytes[i + 1] : 0;
        unsigned third = left > 2 ? bytes[i + 2] : 0;
        unsigned group = bytes[i] << 16 | second << 8 | third;
        out += digits[group >> 18];
        out += digits[group >> 12 & 63];
        out += left > 1 ? digits[group >> 6 & 63] : '=';
        out += left > 2 ? digits[group & 63] : '=';
    }
    out += '"';
}

template <typename Number> void append_number(std::string &out, Number number) {
    char text[32];
    auto end = std::to_chars(text, text + sizeof text, number).ptr;
    out.append(text, end);
}

void append_value(std::string &out, const Value &value) {
    switch (value.tag) {
    case SIGNALBUS_PLUGIN_TYPES_VALUE_NULL:
        out += "null";
        break;
    case SIGNALBUS_PLUGIN_TYPES_VALUE_BOOLEAN:
        out += value.val.boolean ? "true" : "false";
        break;
    case SIGNALBUS_PLUGIN_TYPES_VALUE_INT64:
        append_number(out, value.val.int64);
        break;
    case SIGNALBUS_PLUGIN_TYPES_VALUE_FLOAT64:
        if (std::isfinite(value.val.float64)) {
            append_number(out, value.val.float64);
        } else {
            out += "null"; // JSON has neither NaN nor infinities.
        }
        break;
    case SIGNALBUS_PLUGIN_TYPES_VALUE_BYTES:
        append_base64(out, view(value.val.bytes));
        break;
    case SIGNALBUS_PLUGIN_TYPES_VALUE_JSON:
        out += view(value.val.json);
        break;
    default:
        append_string(out, view(value.val.text)); // All other cases are strings.
    }
}

} // namespace

std::string json_row(const SignalType &type, const Signal &signal) {
    std::string out = "{";
    for (std::size_t i = 0; i < signal.values.len; i++) {
        if (i > 0) {
            out += ',';
        }
        append_string(out, view(type.columns.ptr[i].name));
        out += ':';
        append_value(out, signal.values.ptr[i]);
    }
    out += '}';
    return out;
}
