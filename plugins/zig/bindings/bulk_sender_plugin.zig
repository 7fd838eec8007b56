const __root = @This();
pub const __builtin = @import("std").zig.c_translation.builtins;
pub const __helpers = @import("std").zig.c_translation.helpers;
pub const intmax_t = c_longlong;
pub const uintmax_t = c_ulonglong;
pub const time_t = c_longlong;
pub const suseconds_t = c_longlong;
pub const struct_timeval = extern struct {
    tv_sec: time_t = 0,
    tv_usec: suseconds_t = 0,
};
pub const struct_timespec = extern struct {
    tv_sec: time_t = 0,
    tv_nsec: c_long = 0,
};
pub const ptrdiff_t = c_long;
pub const wchar_t = c_int;
pub const max_align_t = extern struct {
    __aro_max_align_ll: c_longlong = 0,
    __aro_max_align_ld: c_longdouble = 0,
};
pub const struct_iovec = extern struct {
    iov_base: ?*anyopaque = null,
    iov_len: usize = 0,
};
pub const int_fast8_t = i8;
pub const int_fast64_t = i64;
pub const int_least8_t = i8;
pub const int_least16_t = i16;
pub const int_least32_t = i32;
pub const int_least64_t = i64;
pub const uint_fast8_t = u8;
pub const uint_fast64_t = u64;
pub const uint_least8_t = u8;
pub const uint_least16_t = u16;
pub const uint_least32_t = u32;
pub const uint_least64_t = u64;
pub const int_fast16_t = i16;
pub const int_fast32_t = i32;
pub const uint_fast16_t = u16;
pub const uint_fast32_t = u32;
pub const struct_bulk_sender_plugin_string_t = extern struct {
    ptr: [*c]u8 = null,
    len: usize = 0,
    pub const signalbus_plugin_config_get = __root.signalbus_plugin_config_get;
    pub const signalbus_plugin_config_get_secret = __root.signalbus_plugin_config_get_secret;
    pub const bulk_sender_plugin_string_set = __root.bulk_sender_plugin_string_set;
    pub const bulk_sender_plugin_string_dup = __root.bulk_sender_plugin_string_dup;
    pub const bulk_sender_plugin_string_dup_n = __root.bulk_sender_plugin_string_dup_n;
    pub const bulk_sender_plugin_string_free = __root.bulk_sender_plugin_string_free;
    pub const get = __root.signalbus_plugin_config_get;
    pub const secret = __root.signalbus_plugin_config_get_secret;
    pub const set = __root.bulk_sender_plugin_string_set;
    pub const dup = __root.bulk_sender_plugin_string_dup;
    pub const n = __root.bulk_sender_plugin_string_dup_n;
    pub const free = __root.bulk_sender_plugin_string_free;
};
pub const bulk_sender_plugin_string_t = struct_bulk_sender_plugin_string_t;
pub const bulk_sender_plugin_tuple2_string_string_t = extern struct {
    f0: bulk_sender_plugin_string_t = @import("std").mem.zeroes(bulk_sender_plugin_string_t),
    f1: bulk_sender_plugin_string_t = @import("std").mem.zeroes(bulk_sender_plugin_string_t),
    pub const bulk_sender_plugin_tuple2_string_string_free = __root.bulk_sender_plugin_tuple2_string_string_free;
    pub const free = __root.bulk_sender_plugin_tuple2_string_string_free;
};
pub const struct_signalbus_plugin_types_attributes_t = extern struct {
    ptr: [*c]bulk_sender_plugin_tuple2_string_string_t = null,
    len: usize = 0,
    pub const signalbus_plugin_types_attributes_free = __root.signalbus_plugin_types_attributes_free;
    pub const signalbus_plugin_log_attributes_free = __root.signalbus_plugin_log_attributes_free;
    pub const free = __root.signalbus_plugin_types_attributes_free;
};
pub const signalbus_plugin_types_attributes_t = struct_signalbus_plugin_types_attributes_t;
pub const bulk_sender_plugin_list_u8_t = extern struct {
    ptr: [*c]u8 = null,
    len: usize = 0,
    pub const bulk_sender_plugin_list_u8_free = __root.bulk_sender_plugin_list_u8_free;
    pub const free = __root.bulk_sender_plugin_list_u8_free;
};
const union_unnamed_1 = extern union {
    boolean: bool,
    int64: i64,
    float64: f64,
    decimal: bulk_sender_plugin_string_t,
    text: bulk_sender_plugin_string_t,
    bytes: bulk_sender_plugin_list_u8_t,
    json: bulk_sender_plugin_string_t,
    uuid: bulk_sender_plugin_string_t,
    date: bulk_sender_plugin_string_t,
    time: bulk_sender_plugin_string_t,
    datetime: bulk_sender_plugin_string_t,
    timestamp: bulk_sender_plugin_string_t,
    other: bulk_sender_plugin_string_t,
};
pub const struct_signalbus_plugin_types_value_t = extern struct {
    tag: u8 = 0,
    val: union_unnamed_1 = @import("std").mem.zeroes(union_unnamed_1),
    pub const signalbus_plugin_types_value_free = __root.signalbus_plugin_types_value_free;
    pub const free = __root.signalbus_plugin_types_value_free;
};
pub const signalbus_plugin_types_value_t = struct_signalbus_plugin_types_value_t;
pub const struct_signalbus_plugin_types_column_t = extern struct {
    name: bulk_sender_plugin_string_t = @import("std").mem.zeroes(bulk_sender_plugin_string_t),
    db_type: bulk_sender_plugin_string_t = @import("std").mem.zeroes(bulk_sender_plugin_string_t),
    pub const signalbus_plugin_types_column_free = __root.signalbus_plugin_types_column_free;
    pub const free = __root.signalbus_plugin_types_column_free;
};
pub const signalbus_plugin_types_column_t = struct_signalbus_plugin_types_column_t;
pub const signalbus_plugin_types_list_column_t = extern struct {
    ptr: [*c]signalbus_plugin_types_column_t = null,
    len: usize = 0,
    pub const signalbus_plugin_types_list_column_free = __root.signalbus_plugin_types_list_column_free;
    pub const free = __root.signalbus_plugin_types_list_column_free;
};
pub const struct_signalbus_plugin_types_signal_type_t = extern struct {
    name: bulk_sender_plugin_string_t = @import("std").mem.zeroes(bulk_sender_plugin_string_t),
    columns: signalbus_plugin_types_list_column_t = @import("std").mem.zeroes(signalbus_plugin_types_list_column_t),
    attributes: signalbus_plugin_types_attributes_t = @import("std").mem.zeroes(signalbus_plugin_types_attributes_t),
    pub const exports_signalbus_plugin_bulk_sender_send_signalbus_messages = __root.exports_signalbus_plugin_bulk_sender_send_signalbus_messages;
    pub const signalbus_plugin_types_signal_type_free = __root.signalbus_plugin_types_signal_type_free;
    pub const exports_signalbus_plugin_bulk_sender_signal_type_free = __root.exports_signalbus_plugin_bulk_sender_signal_type_free;
    pub const messages = __root.exports_signalbus_plugin_bulk_sender_send_signalbus_messages;
    pub const free = __root.signalbus_plugin_types_signal_type_free;
};
pub const signalbus_plugin_types_signal_type_t = struct_signalbus_plugin_types_signal_type_t;
pub const signalbus_plugin_types_list_value_t = extern struct {
    ptr: [*c]signalbus_plugin_types_value_t = null,
    len: usize = 0,
    pub const signalbus_plugin_types_list_value_free = __root.signalbus_plugin_types_list_value_free;
    pub const free = __root.signalbus_plugin_types_list_value_free;
};
pub const struct_signalbus_plugin_types_signal_t = extern struct {
    id: bulk_sender_plugin_string_t = @import("std").mem.zeroes(bulk_sender_plugin_string_t),
    attempt: u32 = 0,
    values: signalbus_plugin_types_list_value_t = @import("std").mem.zeroes(signalbus_plugin_types_list_value_t),
    pub const signalbus_plugin_types_signal_free = __root.signalbus_plugin_types_signal_free;
    pub const exports_signalbus_plugin_bulk_sender_signal_free = __root.exports_signalbus_plugin_bulk_sender_signal_free;
    pub const free = __root.signalbus_plugin_types_signal_free;
};
pub const signalbus_plugin_types_signal_t = struct_signalbus_plugin_types_signal_t;
pub const bulk_sender_plugin_option_u64_t = extern struct {
    is_some: bool = false,
    val: u64 = 0,
    pub const bulk_sender_plugin_option_u64_free = __root.bulk_sender_plugin_option_u64_free;
    pub const free = __root.bulk_sender_plugin_option_u64_free;
};
pub const struct_signalbus_plugin_types_retry_t = extern struct {
    reason: bulk_sender_plugin_string_t = @import("std").mem.zeroes(bulk_sender_plugin_string_t),
    after_ms: bulk_sender_plugin_option_u64_t = @import("std").mem.zeroes(bulk_sender_plugin_option_u64_t),
    pub const signalbus_plugin_types_retry_free = __root.signalbus_plugin_types_retry_free;
    pub const free = __root.signalbus_plugin_types_retry_free;
};
pub const signalbus_plugin_types_retry_t = struct_signalbus_plugin_types_retry_t;
const union_unnamed_2 = extern union {
    retry: signalbus_plugin_types_retry_t,
    reject: bulk_sender_plugin_string_t,
};
pub const struct_signalbus_plugin_types_outcome_t = extern struct {
    tag: u8 = 0,
    val: union_unnamed_2 = @import("std").mem.zeroes(union_unnamed_2),
    pub const signalbus_plugin_types_outcome_free = __root.signalbus_plugin_types_outcome_free;
    pub const signalbus_plugin_producer_outcome_free = __root.signalbus_plugin_producer_outcome_free;
    pub const exports_signalbus_plugin_bulk_sender_outcome_free = __root.exports_signalbus_plugin_bulk_sender_outcome_free;
    pub const free = __root.signalbus_plugin_types_outcome_free;
};
pub const signalbus_plugin_types_outcome_t = struct_signalbus_plugin_types_outcome_t;
const union_unnamed_3 = extern union {
    unavailable: signalbus_plugin_types_retry_t,
    misconfigured: bulk_sender_plugin_string_t,
};
pub const struct_signalbus_plugin_types_outage_t = extern struct {
    tag: u8 = 0,
    val: union_unnamed_3 = @import("std").mem.zeroes(union_unnamed_3),
    pub const signalbus_plugin_types_outage_free = __root.signalbus_plugin_types_outage_free;
    pub const signalbus_plugin_producer_outage_free = __root.signalbus_plugin_producer_outage_free;
    pub const exports_signalbus_plugin_bulk_sender_outage_free = __root.exports_signalbus_plugin_bulk_sender_outage_free;
    pub const free = __root.signalbus_plugin_types_outage_free;
};
pub const signalbus_plugin_types_outage_t = struct_signalbus_plugin_types_outage_t;
pub const bulk_sender_plugin_option_string_t = extern struct {
    is_some: bool = false,
    val: bulk_sender_plugin_string_t = @import("std").mem.zeroes(bulk_sender_plugin_string_t),
    pub const bulk_sender_plugin_option_string_free = __root.bulk_sender_plugin_option_string_free;
    pub const free = __root.bulk_sender_plugin_option_string_free;
};
pub const struct_signalbus_plugin_types_message_t = extern struct {
    connection: bulk_sender_plugin_string_t = @import("std").mem.zeroes(bulk_sender_plugin_string_t),
    destination: bulk_sender_plugin_string_t = @import("std").mem.zeroes(bulk_sender_plugin_string_t),
    key: bulk_sender_plugin_option_string_t = @import("std").mem.zeroes(bulk_sender_plugin_option_string_t),
    content_type: bulk_sender_plugin_option_string_t = @import("std").mem.zeroes(bulk_sender_plugin_option_string_t),
    headers: signalbus_plugin_types_attributes_t = @import("std").mem.zeroes(signalbus_plugin_types_attributes_t),
    body: bulk_sender_plugin_list_u8_t = @import("std").mem.zeroes(bulk_sender_plugin_list_u8_t),
    id: bulk_sender_plugin_option_string_t = @import("std").mem.zeroes(bulk_sender_plugin_option_string_t),
    options: signalbus_plugin_types_attributes_t = @import("std").mem.zeroes(signalbus_plugin_types_attributes_t),
    pub const signalbus_plugin_types_message_free = __root.signalbus_plugin_types_message_free;
    pub const signalbus_plugin_producer_message_free = __root.signalbus_plugin_producer_message_free;
    pub const free = __root.signalbus_plugin_types_message_free;
};
pub const signalbus_plugin_types_message_t = struct_signalbus_plugin_types_message_t;
pub const signalbus_plugin_log_attributes_t = signalbus_plugin_types_attributes_t;
pub const signalbus_plugin_log_level_t = u8;
pub const bulk_sender_plugin_list_tuple2_string_string_t = extern struct {
    ptr: [*c]bulk_sender_plugin_tuple2_string_string_t = null,
    len: usize = 0,
    pub const signalbus_plugin_config_get_all = __root.signalbus_plugin_config_get_all;
    pub const bulk_sender_plugin_list_tuple2_string_string_free = __root.bulk_sender_plugin_list_tuple2_string_string_free;
    pub const all = __root.signalbus_plugin_config_get_all;
    pub const free = __root.bulk_sender_plugin_list_tuple2_string_string_free;
};
pub const signalbus_plugin_producer_message_t = signalbus_plugin_types_message_t;
pub const signalbus_plugin_producer_outcome_t = signalbus_plugin_types_outcome_t;
pub const signalbus_plugin_producer_outage_t = signalbus_plugin_types_outage_t;
pub const signalbus_plugin_producer_list_message_t = extern struct {
    ptr: [*c]signalbus_plugin_producer_message_t = null,
    len: usize = 0,
    pub const signalbus_plugin_producer_publish = __root.signalbus_plugin_producer_publish;
    pub const signalbus_plugin_producer_list_message_free = __root.signalbus_plugin_producer_list_message_free;
    pub const publish = __root.signalbus_plugin_producer_publish;
    pub const free = __root.signalbus_plugin_producer_list_message_free;
};
pub const signalbus_plugin_producer_list_outcome_t = extern struct {
    ptr: [*c]signalbus_plugin_producer_outcome_t = null,
    len: usize = 0,
    pub const signalbus_plugin_producer_list_outcome_free = __root.signalbus_plugin_producer_list_outcome_free;
    pub const free = __root.signalbus_plugin_producer_list_outcome_free;
};
const union_unnamed_4 = extern union {
    ok: signalbus_plugin_producer_list_outcome_t,
    err: signalbus_plugin_producer_outage_t,
};
pub const signalbus_plugin_producer_result_list_outcome_outage_t = extern struct {
    is_err: bool = false,
    val: union_unnamed_4 = @import("std").mem.zeroes(union_unnamed_4),
    pub const signalbus_plugin_producer_result_list_outcome_outage_free = __root.signalbus_plugin_producer_result_list_outcome_outage_free;
    pub const free = __root.signalbus_plugin_producer_result_list_outcome_outage_free;
};
pub const exports_signalbus_plugin_bulk_sender_signal_type_t = signalbus_plugin_types_signal_type_t;
pub const exports_signalbus_plugin_bulk_sender_signal_t = signalbus_plugin_types_signal_t;
pub const exports_signalbus_plugin_bulk_sender_outcome_t = signalbus_plugin_types_outcome_t;
pub const exports_signalbus_plugin_bulk_sender_outage_t = signalbus_plugin_types_outage_t;
pub const exports_signalbus_plugin_bulk_sender_list_signal_t = extern struct {
    ptr: [*c]exports_signalbus_plugin_bulk_sender_signal_t = null,
    len: usize = 0,
    pub const exports_signalbus_plugin_bulk_sender_list_signal_free = __root.exports_signalbus_plugin_bulk_sender_list_signal_free;
    pub const free = __root.exports_signalbus_plugin_bulk_sender_list_signal_free;
};
pub const exports_signalbus_plugin_bulk_sender_list_outcome_t = extern struct {
    ptr: [*c]exports_signalbus_plugin_bulk_sender_outcome_t = null,
    len: usize = 0,
    pub const exports_signalbus_plugin_bulk_sender_list_outcome_free = __root.exports_signalbus_plugin_bulk_sender_list_outcome_free;
    pub const free = __root.exports_signalbus_plugin_bulk_sender_list_outcome_free;
};
const union_unnamed_5 = extern union {
    ok: exports_signalbus_plugin_bulk_sender_list_outcome_t,
    err: exports_signalbus_plugin_bulk_sender_outage_t,
};
pub const exports_signalbus_plugin_bulk_sender_result_list_outcome_outage_t = extern struct {
    is_err: bool = false,
    val: union_unnamed_5 = @import("std").mem.zeroes(union_unnamed_5),
    pub const exports_signalbus_plugin_bulk_sender_result_list_outcome_outage_free = __root.exports_signalbus_plugin_bulk_sender_result_list_outcome_outage_free;
    pub const free = __root.exports_signalbus_plugin_bulk_sender_result_list_outcome_outage_free;
};
pub extern fn signalbus_plugin_log_enabled(level: signalbus_plugin_log_level_t) bool;
pub extern fn signalbus_plugin_log_emit(level: signalbus_plugin_log_level_t, message: [*c]bulk_sender_plugin_string_t, fields: [*c]signalbus_plugin_log_attributes_t) void;
pub extern fn signalbus_plugin_config_get(key: [*c]bulk_sender_plugin_string_t, ret: [*c]bulk_sender_plugin_string_t) bool;
pub extern fn signalbus_plugin_config_get_all(ret: [*c]bulk_sender_plugin_list_tuple2_string_string_t) void;
pub extern fn signalbus_plugin_config_get_secret(key: [*c]bulk_sender_plugin_string_t, ret: [*c]bulk_sender_plugin_string_t) bool;
pub extern fn signalbus_plugin_producer_publish(messages: [*c]signalbus_plugin_producer_list_message_t, ret: [*c]signalbus_plugin_producer_list_outcome_t, err: [*c]signalbus_plugin_producer_outage_t) bool;
pub extern fn exports_signalbus_plugin_bulk_sender_send_signalbus_messages(signal_type: [*c]exports_signalbus_plugin_bulk_sender_signal_type_t, signals: [*c]exports_signalbus_plugin_bulk_sender_list_signal_t, ret: [*c]exports_signalbus_plugin_bulk_sender_list_outcome_t, err: [*c]exports_signalbus_plugin_bulk_sender_outage_t) bool;
pub extern fn bulk_sender_plugin_tuple2_string_string_free(ptr: [*c]bulk_sender_plugin_tuple2_string_string_t) void;
pub extern fn signalbus_plugin_types_attributes_free(ptr: [*c]signalbus_plugin_types_attributes_t) void;
pub extern fn bulk_sender_plugin_list_u8_free(ptr: [*c]bulk_sender_plugin_list_u8_t) void;
pub extern fn signalbus_plugin_types_value_free(ptr: [*c]signalbus_plugin_types_value_t) void;
pub extern fn signalbus_plugin_types_column_free(ptr: [*c]signalbus_plugin_types_column_t) void;
pub extern fn signalbus_plugin_types_list_column_free(ptr: [*c]signalbus_plugin_types_list_column_t) void;
pub extern fn signalbus_plugin_types_signal_type_free(ptr: [*c]signalbus_plugin_types_signal_type_t) void;
pub extern fn signalbus_plugin_types_list_value_free(ptr: [*c]signalbus_plugin_types_list_value_t) void;
pub extern fn signalbus_plugin_types_signal_free(ptr: [*c]signalbus_plugin_types_signal_t) void;
pub extern fn bulk_sender_plugin_option_u64_free(ptr: [*c]bulk_sender_plugin_option_u64_t) void;
pub extern fn signalbus_plugin_types_retry_free(ptr: [*c]signalbus_plugin_types_retry_t) void;
pub extern fn signalbus_plugin_types_outcome_free(ptr: [*c]signalbus_plugin_types_outcome_t) void;
pub extern fn signalbus_plugin_types_outage_free(ptr: [*c]signalbus_plugin_types_outage_t) void;
pub extern fn bulk_sender_plugin_option_string_free(ptr: [*c]bulk_sender_plugin_option_string_t) void;
pub extern fn signalbus_plugin_types_message_free(ptr: [*c]signalbus_plugin_types_message_t) void;
pub extern fn signalbus_plugin_log_attributes_free(ptr: [*c]signalbus_plugin_log_attributes_t) void;
pub extern fn bulk_sender_plugin_list_tuple2_string_string_free(ptr: [*c]bulk_sender_plugin_list_tuple2_string_string_t) void;
pub extern fn signalbus_plugin_producer_message_free(ptr: [*c]signalbus_plugin_producer_message_t) void;
pub extern fn signalbus_plugin_producer_outcome_free(ptr: [*c]signalbus_plugin_producer_outcome_t) void;
pub extern fn signalbus_plugin_producer_outage_free(ptr: [*c]signalbus_plugin_producer_outage_t) void;
pub extern fn signalbus_plugin_producer_list_message_free(ptr: [*c]signalbus_plugin_producer_list_message_t) void;
pub extern fn signalbus_plugin_producer_list_outcome_free(ptr: [*c]signalbus_plugin_producer_list_outcome_t) void;
pub extern fn signalbus_plugin_producer_result_list_outcome_outage_free(ptr: [*c]signalbus_plugin_producer_result_list_outcome_outage_t) void;
pub extern fn exports_signalbus_plugin_bulk_sender_signal_type_free(ptr: [*c]exports_signalbus_plugin_bulk_sender_signal_type_t) void;
pub extern fn exports_signalbus_plugin_bulk_sender_signal_free(ptr: [*c]exports_signalbus_plugin_bulk_sender_signal_t) void;
pub extern fn exports_signalbus_plugin_bulk_sender_outcome_free(ptr: [*c]exports_signalbus_plugin_bulk_sender_outcome_t) void;
pub extern fn exports_signalbus_plugin_bulk_sender_outage_free(ptr: [*c]exports_signalbus_plugin_bulk_sender_outage_t) void;
pub extern fn exports_signalbus_plugin_bulk_sender_list_signal_free(ptr: [*c]exports_signalbus_plugin_bulk_sender_list_signal_t) void;
pub extern fn exports_signalbus_plugin_bulk_sender_list_outcome_free(ptr: [*c]exports_signalbus_plugin_bulk_sender_list_outcome_t) void;
pub extern fn exports_signalbus_plugin_bulk_sender_result_list_outcome_outage_free(ptr: [*c]exports_signalbus_plugin_bulk_sender_result_list_outcome_outage_t) void;
pub extern fn bulk_sender_plugin_string_set(ret: [*c]bulk_sender_plugin_string_t, s: [*c]const u8) void;
pub extern fn bulk_sender_plugin_string_dup(ret: [*c]bulk_sender_plugin_string_t, s: [*c]const u8) void;
pub extern fn bulk_sender_plugin_string_dup_n(ret: [*c]bulk_sender_plugin_string_t, s: [*c]const u8, len: usize) void;
pub extern fn bulk_sender_plugin_string_free(ret: [*c]bulk_sender_plugin_string_t) void;

pub const __VERSION__ = "Aro aro-zig";
pub const __Aro__ = "";
pub const __STDC__ = @as(c_int, 1);
pub const __STDC_HOSTED__ = @as(c_int, 1);
pub const __STDC_UTF_16__ = @as(c_int, 1);
pub const __STDC_UTF_32__ = @as(c_int, 1);
pub const __STDC_EMBED_NOT_FOUND__ = @as(c_int, 0);
pub const __STDC_EMBED_FOUND__ = @as(c_int, 1);
pub const __STDC_EMBED_EMPTY__ = @as(c_int, 2);
pub const __STDC_VERSION__ = @as(c_long, 201710);
pub const __GNUC__ = @as(c_int, 4);
pub const __GNUC_MINOR__ = @as(c_int, 2);
pub const __GNUC_PATCHLEVEL__ = @as(c_int, 1);
pub const __ARO_EMULATE_NO__ = @as(c_int, 0);
pub const __ARO_EMULATE_CLANG__ = @as(c_int, 1);
pub const __ARO_EMULATE_GCC__ = @as(c_int, 2);
pub const __ARO_EMULATE_MSVC__ = @as(c_int, 3);
pub const __ARO_EMULATE__ = __ARO_EMULATE_CLANG__;
pub inline fn __building_module(x: anytype) @TypeOf(@as(c_int, 0)) {
    _ = &x;
    return @as(c_int, 0);
}
pub const TARGET_OS_WIN32 = @as(c_int, 0);
pub const TARGET_OS_WINDOWS = @as(c_int, 0);
pub const TARGET_OS_LINUX = @as(c_int, 0);
pub const TARGET_OS_UNIX = @as(c_int, 0);
pub const TARGET_OS_MAC = @as(c_int, 0);
pub const TARGET_OS_OSX = @as(c_int, 0);
pub const TARGET_OS_IPHONE = @as(c_int, 0);
pub const TARGET_OS_IOS = @as(c_int, 0);
pub const TARGET_OS_TV = @as(c_int, 0);
pub const TARGET_OS_WATCH = @as(c_int, 0);
pub const TARGET_OS_VISION = @as(c_int, 0);
pub const TARGET_OS_DRIVERKIT = @as(c_int, 0);
pub const TARGET_OS_MACCATALYST = @as(c_int, 0);
pub const TARGET_OS_SIMULATOR = @as(c_int, 0);
pub const TARGET_OS_EMBEDDED = @as(c_int, 0);
pub const TARGET_OS_NANO = @as(c_int, 0);
pub const TARGET_IPHONE_SIMULATOR = @as(c_int, 0);
pub const TARGET_OS_UIKITFORMAC = @as(c_int, 0);
pub const TARGET_OS_UEFI = @as(c_int, 0);
pub const __wasi__ = @as(c_int, 1);
pub const __wasm = @as(c_int, 1);
pub const __wasm__ = @as(c_int, 1);
pub const __wasm32 = @as(c_int, 1);
pub const __wasm32__ = @as(c_int, 1);
pub const __wasm_bulk_memory_opt__ = @as(c_int, 1);
pub const __wasm_call_indirect_overlong__ = @as(c_int, 1);
pub const __wasm_extended_const__ = @as(c_int, 1);
pub const __wasm_multivalue__ = @as(c_int, 1);
pub const __wasm_mutable_globals__ = @as(c_int, 1);
pub const __wasm_nontrapping_fptoint__ = @as(c_int, 1);
pub const __wasm_sign_ext__ = @as(c_int, 1);
pub const _ILP32 = @as(c_int, 1);
pub const __ILP32__ = @as(c_int, 1);
pub const __FLOAT128__ = @as(c_int, 1);
pub const __ORDER_LITTLE_ENDIAN__ = @as(c_int, 1234);
pub const __ORDER_BIG_ENDIAN__ = @as(c_int, 4321);
pub const __ORDER_PDP_ENDIAN__ = @as(c_int, 3412);
pub const __BYTE_ORDER__ = __ORDER_LITTLE_ENDIAN__;
pub const __LITTLE_ENDIAN__ = @as(c_int, 1);
pub const __ATOMIC_RELAXED = @as(c_int, 0);
pub const __ATOMIC_CONSUME = @as(c_int, 1);
pub const __ATOMIC_ACQUIRE = @as(c_int, 2);
pub const __ATOMIC_RELEASE = @as(c_int, 3);
pub const __ATOMIC_ACQ_REL = @as(c_int, 4);
pub const __ATOMIC_SEQ_CST = @as(c_int, 5);
pub const __ATOMIC_BOOL_LOCK_FREE = @as(c_int, 1);
pub const __ATOMIC_CHAR_LOCK_FREE = @as(c_int, 1);
pub const __ATOMIC_CHAR16_T_LOCK_FREE = @as(c_int, 1);
pub const __ATOMIC_CHAR32_T_LOCK_FREE = @as(c_int, 1);
pub const __ATOMIC_WCHAR_T_LOCK_FREE = @as(c_int, 1);
pub const __ATOMIC_WINT_T_LOCK_FREE = @as(c_int, 1);
pub const __ATOMIC_SHORT_LOCK_FREE = @as(c_int, 1);
pub const __ATOMIC_INT_LOCK_FREE = @as(c_int, 1);
pub const __ATOMIC_LONG_LOCK_FREE = @as(c_int, 1);
pub const __ATOMIC_LLONG_LOCK_FREE = @as(c_int, 1);
pub const __ATOMIC_POINTER_LOCK_FREE = @as(c_int, 1);
pub const __CHAR_BIT__ = @as(c_int, 8);
pub const __BOOL_WIDTH__ = @as(c_int, 8);
pub const __SCHAR_MAX__ = @as(c_int, 127);
pub const __SCHAR_WIDTH__ = @as(c_int, 8);
pub const __SHRT_MAX__ = @as(c_int, 32767);
pub const __SHRT_WIDTH__ = @as(c_int, 16);
pub const __INT_MAX__ = __helpers.promoteIntLiteral(c_int, 2147483647, .decimal);
pub const __INT_WIDTH__ = @as(c_int, 32);
pub const __LONG_MAX__ = @as(c_long, 2147483647);
pub const __LONG_WIDTH__ = @as(c_int, 32);
pub const __LONG_LONG_MAX__ = @as(c_longlong, 9223372036854775807);
pub const __LONG_LONG_WIDTH__ = @as(c_int, 64);
pub const __WCHAR_MAX__ = __helpers.promoteIntLiteral(c_int, 2147483647, .decimal);
pub const __WCHAR_WIDTH__ = @as(c_int, 32);
pub const __WINT_MAX__ = __helpers.promoteIntLiteral(c_int, 2147483647, .decimal);
pub const __WINT_WIDTH__ = @as(c_int, 32);
pub const __INTMAX_MAX__ = @as(c_longlong, 9223372036854775807);
pub const __INTMAX_WIDTH__ = @as(c_int, 64);
pub const __SIZE_MAX__ = @as(c_ulong, 4294967295);
pub const __SIZE_WIDTH__ = @as(c_int, 32);
pub const __UINTMAX_MAX__ = @as(c_ulonglong, 18446744073709551615);
pub const __UINTMAX_WIDTH__ = @as(c_int, 64);
pub const __PTRDIFF_MAX__ = @as(c_long, 2147483647);
pub const __PTRDIFF_WIDTH__ = @as(c_int, 32);
pub const __INTPTR_MAX__ = @as(c_long, 2147483647);
pub const __INTPTR_WIDTH__ = @as(c_int, 32);
pub const __UINTPTR_MAX__ = @as(c_ulong, 4294967295);
pub const __UINTPTR_WIDTH__ = @as(c_int, 32);
pub const __SIG_ATOMIC_MAX__ = @as(c_long, 2147483647);
pub const __SIG_ATOMIC_WIDTH__ = @as(c_int, 32);
pub const __BITINT_MAXWIDTH__ = __helpers.promoteIntLiteral(c_int, 65535, .decimal);
pub const __SIZEOF_FLOAT__ = @as(c_int, 4);
pub const __SIZEOF_DOUBLE__ = @as(c_int, 8);
pub const __SIZEOF_LONG_DOUBLE__ = @as(c_int, 16);
pub const __SIZEOF_SHORT__ = @as(c_int, 2);
pub const __SIZEOF_INT__ = @as(c_int, 4);
pub const __SIZEOF_LONG__ = @as(c_int, 4);
pub const __SIZEOF_LONG_LONG__ = @as(c_int, 8);
pub const __SIZEOF_POINTER__ = @as(c_int, 4);
pub const __SIZEOF_PTRDIFF_T__ = @as(c_int, 4);
pub const __SIZEOF_SIZE_T__ = @as(c_int, 4);
pub const __SIZEOF_WCHAR_T__ = @as(c_int, 4);
pub const __SIZEOF_WINT_T__ = @as(c_int, 4);
pub const __SIZEOF_INT128__ = @as(c_int, 16);
pub const __INTPTR_TYPE__ = c_long;
pub const __UINTPTR_TYPE__ = c_ulong;
pub const __INTMAX_TYPE__ = c_longlong;
pub const __INTMAX_C_SUFFIX__ = @compileError("unable to translate macro: undefined identifier `L`");
// <builtin>:123:9
pub const __INTMAX_C = __helpers.L_SUFFIX;
pub const __UINTMAX_TYPE__ = c_ulonglong;
pub const __UINTMAX_C_SUFFIX__ = @compileError("unable to translate macro: undefined identifier `UL`");
// <builtin>:126:9
pub const __UINTMAX_C = __helpers.UL_SUFFIX;
pub const __PTRDIFF_TYPE__ = c_long;
pub const __SIZE_TYPE__ = c_ulong;
pub const __WCHAR_TYPE__ = c_int;
pub const __WINT_TYPE__ = c_int;
pub const __CHAR16_TYPE__ = c_ushort;
pub const __CHAR32_TYPE__ = c_uint;
pub const __INT8_TYPE__ = i8;
pub const __INT8_FMTd__ = "hhd";
pub const __INT8_FMTi__ = "hhi";
pub const __INT8_C_SUFFIX__ = "";
pub inline fn __INT8_C(c: anytype) @TypeOf(c) {
    _ = &c;
    return c;
}
pub const __INT16_TYPE__ = c_short;
pub const __INT16_FMTd__ = "hd";
pub const __INT16_FMTi__ = "hi";
pub const __INT16_C_SUFFIX__ = "";
pub inline fn __INT16_C(c: anytype) @TypeOf(c) {
    _ = &c;
    return c;
}
pub const __INT32_TYPE__ = c_int;
pub const __INT32_FMTd__ = "d";
pub const __INT32_FMTi__ = "i";
pub const __INT32_C_SUFFIX__ = "";
pub inline fn __INT32_C(c: anytype) @TypeOf(c) {
    _ = &c;
    return c;
}
pub const __INT64_TYPE__ = c_longlong;
pub const __INT64_FMTd__ = "lld";
pub const __INT64_FMTi__ = "lli";
pub const __INT64_C_SUFFIX__ = @compileError("unable to translate macro: undefined identifier `LL`");
// <builtin>:152:9
pub const __INT64_C = __helpers.LL_SUFFIX;
pub const __UINT8_TYPE__ = u8;
pub const __UINT8_FMTo__ = "hho";
pub const __UINT8_FMTu__ = "hhu";
pub const __UINT8_FMTx__ = "hhx";
pub const __UINT8_FMTX__ = "hhX";
pub const __UINT8_C_SUFFIX__ = "";
pub inline fn __UINT8_C(c: anytype) @TypeOf(c) {
    _ = &c;
    return c;
}
pub const __UINT8_MAX__ = @as(c_int, 255);
pub const __INT8_MAX__ = @as(c_int, 127);
pub const __UINT16_TYPE__ = c_ushort;
pub const __UINT16_FMTo__ = "ho";
pub const __UINT16_FMTu__ = "hu";
pub const __UINT16_FMTx__ = "hx";
pub const __UINT16_FMTX__ = "hX";
pub const __UINT16_C_SUFFIX__ = "";
pub inline fn __UINT16_C(c: anytype) @TypeOf(c) {
    _ = &c;
    return c;
}
pub const __UINT16_MAX__ = __helpers.promoteIntLiteral(c_int, 65535, .decimal);
pub const __INT16_MAX__ = @as(c_int, 32767);
pub const __UINT32_TYPE__ = c_uint;
pub const __UINT32_FMTo__ = "o";
pub const __UINT32_FMTu__ = "u";
pub const __UINT32_FMTx__ = "x";
pub const __UINT32_FMTX__ = "X";
pub const __UINT32_C_SUFFIX__ = @compileError("unable to translate macro: undefined identifier `U`");
// <builtin>:177:9
pub const __UINT32_C = __helpers.U_SUFFIX;
pub const __UINT32_MAX__ = __helpers.promoteIntLiteral(c_uint, 4294967295, .decimal);
pub const __INT32_MAX__ = __helpers.promoteIntLiteral(c_int, 2147483647, .decimal);
pub const __UINT64_TYPE__ = c_ulonglong;
pub const __UINT64_FMTo__ = "llo";
pub const __UINT64_FMTu__ = "llu";
pub const __UINT64_FMTx__ = "llx";
pub const __UINT64_FMTX__ = "llX";
pub const __UINT64_C_SUFFIX__ = @compileError("unable to translate macro: undefined identifier `ULL`");
// <builtin>:186:9
pub const __UINT64_C = __helpers.ULL_SUFFIX;
pub const __UINT64_MAX__ = @as(c_ulonglong, 18446744073709551615);
pub const __INT64_MAX__ = @as(c_longlong, 9223372036854775807);
pub const __INT_LEAST8_TYPE__ = i8;
pub const __INT_LEAST8_MAX__ = @as(c_int, 127);
pub const __INT_LEAST8_WIDTH__ = @as(c_int, 8);
pub const INT_LEAST8_FMTd__ = "hhd";
pub const INT_LEAST8_FMTi__ = "hhi";
pub const __UINT_LEAST8_TYPE__ = u8;
pub const __UINT_LEAST8_MAX__ = @as(c_int, 255);
pub const UINT_LEAST8_FMTo__ = "hho";
pub const UINT_LEAST8_FMTu__ = "hhu";
pub const UINT_LEAST8_FMTx__ = "hhx";
pub const UINT_LEAST8_FMTX__ = "hhX";
pub const __INT_FAST8_TYPE__ = i8;
pub const __INT_FAST8_MAX__ = @as(c_int, 127);
pub const __INT_FAST8_WIDTH__ = @as(c_int, 8);
pub const INT_FAST8_FMTd__ = "hhd";
pub const INT_FAST8_FMTi__ = "hhi";
pub const __UINT_FAST8_TYPE__ = u8;
pub const __UINT_FAST8_MAX__ = @as(c_int, 255);
pub const UINT_FAST8_FMTo__ = "hho";
pub const UINT_FAST8_FMTu__ = "hhu";
pub const UINT_FAST8_FMTx__ = "hhx";
pub const UINT_FAST8_FMTX__ = "hhX";
pub const __INT_LEAST16_TYPE__ = c_short;
pub const __INT_LEAST16_MAX__ = @as(c_int, 32767);
pub const __INT_LEAST16_WIDTH__ = @as(c_int, 16);
pub const INT_LEAST16_FMTd__ = "hd";
pub const INT_LEAST16_FMTi__ = "hi";
pub const __UINT_LEAST16_TYPE__ = c_ushort;
pub const __UINT_LEAST16_MAX__ = __helpers.promoteIntLiteral(c_int, 65535, .decimal);
pub const UINT_LEAST16_FMTo__ = "ho";
pub const UINT_LEAST16_FMTu__ = "hu";
pub const UINT_LEAST16_FMTx__ = "hx";
pub const UINT_LEAST16_FMTX__ = "hX";
pub const __INT_FAST16_TYPE__ = c_short;
pub const __INT_FAST16_MAX__ = @as(c_int, 32767);
pub const __INT_FAST16_WIDTH__ = @as(c_int, 16);
pub const INT_FAST16_FMTd__ = "hd";
pub const INT_FAST16_FMTi__ = "hi";
pub const __UINT_FAST16_TYPE__ = c_ushort;
pub const __UINT_FAST16_MAX__ = __helpers.promoteIntLiteral(c_int, 65535, .decimal);
pub const UINT_FAST16_FMTo__ = "ho";
pub const UINT_FAST16_FMTu__ = "hu";
pub const UINT_FAST16_FMTx__ = "hx";
pub const UINT_FAST16_FMTX__ = "hX";
pub const __INT_LEAST32_TYPE__ = c_int;
pub const __INT_LEAST32_MAX__ = __helpers.promoteIntLiteral(c_int, 2147483647, .decimal);
pub const __INT_LEAST32_WIDTH__ = @as(c_int, 32);
pub const INT_LEAST32_FMTd__ = "d";
pub const INT_LEAST32_FMTi__ = "i";
pub const __UINT_LEAST32_TYPE__ = c_uint;
pub const __UINT_LEAST32_MAX__ = __helpers.promoteIntLiteral(c_uint, 4294967295, .decimal);
pub const UINT_LEAST32_FMTo__ = "o";
pub const UINT_LEAST32_FMTu__ = "u";
pub const UINT_LEAST32_FMTx__ = "x";
pub const UINT_LEAST32_FMTX__ = "X";
pub const __INT_FAST32_TYPE__ = c_int;
pub const __INT_FAST32_MAX__ = __helpers.promoteIntLiteral(c_int, 2147483647, .decimal);
pub const __INT_FAST32_WIDTH__ = @as(c_int, 32);
pub const INT_FAST32_FMTd__ = "d";
pub const INT_FAST32_FMTi__ = "i";
pub const __UINT_FAST32_TYPE__ = c_uint;
pub const __UINT_FAST32_MAX__ = __helpers.promoteIntLiteral(c_uint, 4294967295, .decimal);
pub const UINT_FAST32_FMTo__ = "o";
pub const UINT_FAST32_FMTu__ = "u";
pub const UINT_FAST32_FMTx__ = "x";
pub const UINT_FAST32_FMTX__ = "X";
pub const __INT_LEAST64_TYPE__ = c_longlong;
pub const __INT_LEAST64_MAX__ = @as(c_longlong, 9223372036854775807);
pub const __INT_LEAST64_WIDTH__ = @as(c_int, 64);
pub const INT_LEAST64_FMTd__ = "lld";
pub const INT_LEAST64_FMTi__ = "lli";
pub const __UINT_LEAST64_TYPE__ = c_ulonglong;
pub const __UINT_LEAST64_MAX__ = @as(c_ulonglong, 18446744073709551615);
pub const UINT_LEAST64_FMTo__ = "llo";
pub const UINT_LEAST64_FMTu__ = "llu";
pub const UINT_LEAST64_FMTx__ = "llx";
pub const UINT_LEAST64_FMTX__ = "llX";
pub const __INT_FAST64_TYPE__ = c_longlong;
pub const __INT_FAST64_MAX__ = @as(c_longlong, 9223372036854775807);
pub const __INT_FAST64_WIDTH__ = @as(c_int, 64);
pub const INT_FAST64_FMTd__ = "lld";
pub const INT_FAST64_FMTi__ = "lli";
pub const __UINT_FAST64_TYPE__ = c_ulonglong;
pub const __UINT_FAST64_MAX__ = @as(c_ulonglong, 18446744073709551615);
pub const UINT_FAST64_FMTo__ = "llo";
pub const UINT_FAST64_FMTu__ = "llu";
pub const UINT_FAST64_FMTx__ = "llx";
pub const UINT_FAST64_FMTX__ = "llX";
pub const __FLT_DENORM_MIN__ = @as(f32, 1.40129846e-45);
pub const __FLT_HAS_DENORM__ = "";
pub const __FLT_DIG__ = @as(c_int, 6);
pub const __FLT_DECIMAL_DIG__ = @as(c_int, 9);
pub const __FLT_EPSILON__ = @as(f32, 1.19209290e-7);
pub const __FLT_HAS_INFINITY__ = "";
pub const __FLT_HAS_QUIET_NAN__ = "";
pub const __FLT_MANT_DIG__ = @as(c_int, 24);
pub const __FLT_MAX_10_EXP__ = @as(c_int, 38);
pub const __FLT_MAX_EXP__ = @as(c_int, 128);
pub const __FLT_MAX__ = @as(f32, 3.40282347e+38);
pub const __FLT_MIN_10_EXP__ = -@as(c_int, 37);
pub const __FLT_MIN_EXP__ = -@as(c_int, 125);
pub const __FLT_MIN__ = @as(f32, 1.17549435e-38);
pub const __DBL_DENORM_MIN__ = @as(f64, 4.9406564584124654e-324);
pub const __DBL_HAS_DENORM__ = "";
pub const __DBL_DIG__ = @as(c_int, 15);
pub const __DBL_DECIMAL_DIG__ = @as(c_int, 17);
pub const __DBL_EPSILON__ = @as(f64, 2.2204460492503131e-16);
pub const __DBL_HAS_INFINITY__ = "";
pub const __DBL_HAS_QUIET_NAN__ = "";
pub const __DBL_MANT_DIG__ = @as(c_int, 53);
pub const __DBL_MAX_10_EXP__ = @as(c_int, 308);
pub const __DBL_MAX_EXP__ = @as(c_int, 1024);
pub const __DBL_MAX__ = @as(f64, 1.7976931348623157e+308);
pub const __DBL_MIN_10_EXP__ = -@as(c_int, 307);
pub const __DBL_MIN_EXP__ = -@as(c_int, 1021);
pub const __DBL_MIN__ = @as(f64, 2.2250738585072014e-308);
pub const __LDBL_DENORM_MIN__ = @as(c_longdouble, 6.47517511943802511092443895822764655e-4966);
pub const __LDBL_HAS_DENORM__ = "";
pub const __LDBL_DIG__ = @as(c_int, 33);
pub const __LDBL_DECIMAL_DIG__ = @as(c_int, 36);
pub const __LDBL_EPSILON__ = @as(c_longdouble, 1.92592994438723585305597794258492732e-34);
pub const __LDBL_HAS_INFINITY__ = "";
pub const __LDBL_HAS_QUIET_NAN__ = "";
pub const __LDBL_MANT_DIG__ = @as(c_int, 113);
pub const __LDBL_MAX_10_EXP__ = @as(c_int, 4932);
pub const __LDBL_MAX_EXP__ = @as(c_int, 16384);
pub const __LDBL_MAX__ = @as(c_longdouble, 1.18973149535723176508575932662800702e+4932);
pub const __LDBL_MIN_10_EXP__ = -@as(c_int, 4931);
pub const __LDBL_MIN_EXP__ = -@as(c_int, 16381);
pub const __LDBL_MIN__ = @as(c_longdouble, 3.36210314311209350626267781732175260e-4932);
pub const __FLT_EVAL_METHOD__ = @as(c_int, 0);
pub const __FLT_RADIX__ = @as(c_int, 2);
pub const __DECIMAL_DIG__ = __LDBL_DECIMAL_DIG__;
pub const __BINDINGS_BULK_SENDER_PLUGIN_H = "";
pub const __CLANG_STDINT_H = "";
pub const _STDINT_H = "";
pub const __NEED_int8_t = "";
pub const __NEED_int16_t = "";
pub const __NEED_int32_t = "";
pub const __NEED_int64_t = "";
pub const __NEED_uint8_t = "";
pub const __NEED_uint16_t = "";
pub const __NEED_uint32_t = "";
pub const __NEED_uint64_t = "";
pub const __NEED_intptr_t = "";
pub const __NEED_uintptr_t = "";
pub const __NEED_intmax_t = "";
pub const __NEED_uintmax_t = "";
pub const __BYTE_ORDER = __BYTE_ORDER__;
pub const __LONG_MAX = __LONG_MAX__;
pub const __LITTLE_ENDIAN = @as(c_int, 1234);
pub const __BIG_ENDIAN = @as(c_int, 4321);
pub const __USE_TIME_BITS64 = @as(c_int, 1);
pub const __DEFINED_uintptr_t = "";
pub const __DEFINED_intptr_t = "";
pub const __DEFINED_int8_t = "";
pub const __DEFINED_int16_t = "";
pub const __DEFINED_int32_t = "";
pub const __DEFINED_int64_t = "";
pub const __DEFINED_intmax_t = "";
pub const __DEFINED_uint8_t = "";
pub const __DEFINED_uint16_t = "";
pub const __DEFINED_uint32_t = "";
pub const __DEFINED_uint64_t = "";
pub const __DEFINED_uintmax_t = "";
pub const __wasilibc___struct_timeval_h = "";
pub const __wasilibc___typedef_time_t_h = "";
pub const __wasilibc___typedef_suseconds_t_h = "";
pub const __wasilibc___struct_timespec_h = "";
pub const __wasilibc___struct_iovec_h = "";
pub const __need_size_t = "";
pub const __STDC_VERSION_STDDEF_H__ = @as(c_long, 202311);
pub const NULL = __helpers.cast(?*anyopaque, @as(c_int, 0));
pub const offsetof = @compileError("unable to translate macro: undefined identifier `__builtin_offsetof`");
pub const INT8_MIN = -@as(c_int, 1) - @as(c_int, 0x7f);
pub const INT16_MIN = -@as(c_int, 1) - @as(c_int, 0x7fff);
pub const INT32_MIN = -@as(c_int, 1) - __helpers.promoteIntLiteral(c_int, 0x7fffffff, .hex);
pub const INT64_MIN = -@as(c_int, 1) - __helpers.promoteIntLiteral(c_int, 0x7fffffffffffffff, .hex);
pub const INT8_MAX = @as(c_int, 0x7f);
pub const INT16_MAX = @as(c_int, 0x7fff);
pub const INT32_MAX = __helpers.promoteIntLiteral(c_int, 0x7fffffff, .hex);
pub const INT64_MAX = __helpers.promoteIntLiteral(c_int, 0x7fffffffffffffff, .hex);
pub const UINT8_MAX = @as(c_int, 0xff);
pub const UINT16_MAX = __helpers.promoteIntLiteral(c_int, 0xffff, .hex);
pub const UINT32_MAX = __helpers.promoteIntLiteral(c_uint, 0xffffffff, .hex);
pub const UINT64_MAX = __helpers.promoteIntLiteral(c_uint, 0xffffffffffffffff, .hex);
pub const INT_FAST8_MIN = INT8_MIN;
pub const INT_FAST64_MIN = INT64_MIN;
pub const INT_LEAST8_MIN = INT8_MIN;
pub const INT_LEAST16_MIN = INT16_MIN;
pub const INT_LEAST32_MIN = INT32_MIN;
pub const INT_LEAST64_MIN = INT64_MIN;
pub const INT_FAST8_MAX = INT8_MAX;
pub const INT_FAST64_MAX = INT64_MAX;
pub const INT_LEAST8_MAX = INT8_MAX;
pub const INT_LEAST16_MAX = INT16_MAX;
pub const INT_LEAST32_MAX = INT32_MAX;
pub const INT_LEAST64_MAX = INT64_MAX;
pub const UINT_FAST8_MAX = UINT8_MAX;
pub const UINT_FAST64_MAX = UINT64_MAX;
pub const UINT_LEAST8_MAX = UINT8_MAX;
pub const UINT_LEAST16_MAX = UINT16_MAX;
pub const UINT_LEAST32_MAX = UINT32_MAX;
pub const UINT_LEAST64_MAX = UINT64_MAX;
pub const INTMAX_MIN = INT64_MIN;
pub const INTMAX_MAX = INT64_MAX;
pub const UINTMAX_MAX = UINT64_MAX;
pub const WINT_MIN = @as(c_uint, 0);
pub const WINT_MAX = UINT32_MAX;
pub const WCHAR_MAX = __helpers.promoteIntLiteral(c_int, 0x7fffffff, .hex) + '\x00';
pub const WCHAR_MIN = (-@as(c_int, 1) - __helpers.promoteIntLiteral(c_int, 0x7fffffff, .hex)) + '\x00';
pub const SIG_ATOMIC_MIN = INT32_MIN;
pub const SIG_ATOMIC_MAX = INT32_MAX;
pub const INT_FAST16_MIN = INT16_MIN;
pub const INT_FAST32_MIN = INT32_MIN;
pub const INT_FAST16_MAX = INT16_MAX;
pub const INT_FAST32_MAX = INT32_MAX;
pub const UINT_FAST16_MAX = UINT16_MAX;
pub const UINT_FAST32_MAX = UINT32_MAX;
pub const INTPTR_MIN = INT32_MIN;
pub const INTPTR_MAX = INT32_MAX;
pub const UINTPTR_MAX = UINT32_MAX;
pub const PTRDIFF_MIN = INT32_MIN;
pub const PTRDIFF_MAX = INT32_MAX;
pub const SIZE_MAX = UINT32_MAX;
pub inline fn INT8_C(c: anytype) @TypeOf(c) {
    _ = &c;
    return c;
}
pub inline fn INT16_C(c: anytype) @TypeOf(c) {
    _ = &c;
    return c;
}
pub inline fn INT32_C(c: anytype) @TypeOf(c) {
    _ = &c;
    return c;
}
pub inline fn UINT8_C(c: anytype) @TypeOf(c) {
    _ = &c;
    return c;
}
pub inline fn UINT16_C(c: anytype) @TypeOf(c) {
    _ = &c;
    return c;
}
pub const UINT32_C = __helpers.U_SUFFIX;
pub const INT64_C = __helpers.LL_SUFFIX;
pub const UINT64_C = __helpers.ULL_SUFFIX;
pub const INTMAX_C = __helpers.LL_SUFFIX;
pub const UINTMAX_C = __helpers.ULL_SUFFIX;
pub const @"bool" = bool;
pub const @"true" = @as(c_int, 1);
pub const @"false" = @as(c_int, 0);
pub const __bool_true_false_are_defined = @as(c_int, 1);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_NULL = @as(c_int, 0);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_BOOLEAN = @as(c_int, 1);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_INT64 = @as(c_int, 2);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_FLOAT64 = @as(c_int, 3);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_DECIMAL = @as(c_int, 4);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_TEXT = @as(c_int, 5);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_BYTES = @as(c_int, 6);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_JSON = @as(c_int, 7);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_UUID = @as(c_int, 8);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_DATE = @as(c_int, 9);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_TIME = @as(c_int, 10);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_DATETIME = @as(c_int, 11);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_TIMESTAMP = @as(c_int, 12);
pub const SIGNALBUS_PLUGIN_TYPES_VALUE_OTHER = @as(c_int, 13);
pub const SIGNALBUS_PLUGIN_TYPES_OUTCOME_SENT = @as(c_int, 0);
pub const SIGNALBUS_PLUGIN_TYPES_OUTCOME_SKIP = @as(c_int, 1);
pub const SIGNALBUS_PLUGIN_TYPES_OUTCOME_RETRY = @as(c_int, 2);
pub const SIGNALBUS_PLUGIN_TYPES_OUTCOME_REJECT = @as(c_int, 3);
pub const SIGNALBUS_PLUGIN_TYPES_OUTAGE_UNAVAILABLE = @as(c_int, 0);
pub const SIGNALBUS_PLUGIN_TYPES_OUTAGE_MISCONFIGURED = @as(c_int, 1);
pub const SIGNALBUS_PLUGIN_LOG_LEVEL_TRACE = @as(c_int, 0);
pub const SIGNALBUS_PLUGIN_LOG_LEVEL_DEBUG = @as(c_int, 1);
pub const SIGNALBUS_PLUGIN_LOG_LEVEL_INFO = @as(c_int, 2);
pub const SIGNALBUS_PLUGIN_LOG_LEVEL_WARN = @as(c_int, 3);
pub const SIGNALBUS_PLUGIN_LOG_LEVEL_ERROR = @as(c_int, 4);
pub const timeval = struct_timeval;
pub const timespec = struct_timespec;
pub const iovec = struct_iovec;
