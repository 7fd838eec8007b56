//! MariaDB's types.

use proptest::prelude::*;

use super::{Database, Relay, Value, check, claim, hex, property, source};

fn other(text: &str) -> Value {
    Value::Other(text.into())
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn decimal(text: &str) -> Value {
    Value::Decimal(text.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers() {
    let wide = "-12345678901234567890123456789012345.123456789012345678901234567890";
    let ones = "1".repeat(64);
    check(
        &Database::mariadb().await,
        &[
            ("TINYINT", "-128", Value::Int64(-128)),
            ("BOOLEAN", "TRUE", Value::Int64(1)),
            ("TINYINT UNSIGNED", "255", Value::Int64(255)),
            ("SMALLINT", "-32768", Value::Int64(-32768)),
            ("MEDIUMINT", "-8388608", Value::Int64(-8_388_608)),
            ("MEDIUMINT UNSIGNED", "16777215", Value::Int64(16_777_215)),
            ("INT", "-2147483648", Value::Int64(-2_147_483_648)),
            ("INT UNSIGNED", "4294967295", Value::Int64(4_294_967_295)),
            ("INT(7) ZEROFILL", "42", Value::Int64(42)),
            ("BIGINT", "-9223372036854775808", Value::Int64(i64::MIN)),
            ("BIGINT UNSIGNED", "9223372036854775807", Value::Int64(i64::MAX)),
            ("BIGINT UNSIGNED", "18446744073709551615", decimal("18446744073709551615")),
            ("BIGINT UNSIGNED", "NULL", Value::Null),
            ("FLOAT", "0.1", Value::Float64(0.1_f32.into())),
            ("FLOAT", "123456789e0", Value::Float64(123_456_789_f32.into())),
            ("FLOAT", "3.4028234663852886e38", Value::Float64(f32::MAX.into())),
            ("FLOAT(7,3)", "1.25", Value::Float64(1.25)),
            ("FLOAT UNSIGNED", "0.7", Value::Float64(0.7_f32.into())),
            ("DOUBLE", "1.7976931348623157e308", Value::Float64(f64::MAX)),
            ("DOUBLE", "2.2250738585072014e-308", Value::Float64(f64::MIN_POSITIVE)),
            ("DOUBLE", "0.30000000000000004e0", Value::Float64(0.1 + 0.2)),
            ("DECIMAL(65,30)", wide, decimal(wide)),
            ("DECIMAL(10,2)", "1.5", decimal("1.50")),
            ("DECIMAL(10,2) UNSIGNED ZEROFILL", "1.5", decimal("00000001.50")),
            ("BIT(1)", "b'1'", other("1")),
            ("BIT(12)", "b'101'", other("000000000101")),
            ("BIT(64)", "~0", other(&ones)),
        ],
    )
    .await;
}

/// Some servers keep the sign of zero, and some of the same version do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_zero_with_a_sign() {
    let database = Database::mariadb().await;
    database.run("CREATE TABLE things (id INT PRIMARY KEY, c DOUBLE); INSERT INTO things VALUES (0, -0e0)").await;
    let relay = Relay::open(&database, &source("things")).await;
    let batch = claim(&mut relay.worker(), 1).await;
    let arrived = &batch.signals[0].values[1];
    assert!(matches!(arrived, Value::Float64(zero) if *zero == 0.0), "{arrived:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_bytes() {
    check(
        &Database::mariadb().await,
        &[
            ("VARCHAR(50)", "'a  \\n\\\\''\\\"\\0ü😀 '", text("a  \n\\'\"\0ü😀 ")),
            ("CHAR(5)", "'ab'", text("ab")),
            ("TINYTEXT", "''", text("")),
            ("TEXT", "REPEAT('ü', 30000)", text(&"ü".repeat(30_000))),
            ("LONGTEXT", "REPEAT('0123456789abcdef', 524288)", text(&"0123456789abcdef".repeat(524_288))),
            ("VARCHAR(20) CHARACTER SET latin1", "'é€ß'", text("é€ß")),
            ("VARCHAR(20) CHARACTER SET utf16", "'a😀'", text("a😀")),
            ("VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin", "'plain'", text("plain")),
            ("BINARY(4)", "X'00FF'", Value::Bytes(vec![0, 255, 0, 0])),
            ("VARBINARY(9)", "X'00FF00'", Value::Bytes(vec![0, 255, 0])),
            ("TINYBLOB", "''", Value::Bytes(vec![])),
            ("LONGBLOB", "REPEAT(X'00FE', 4194304)", Value::Bytes([0, 254].repeat(4_194_304))),
            ("JSON", "'{\"b\" : 1,  \"b\":[2 ]}'", Value::Json("{\"b\" : 1,  \"b\":[2 ]}".into())),
            ("ENUM('a','it''s','B c')", "'it''s'", other("it's")),
            ("ENUM('','x')", "''", other("")),
            ("SET('a','b','c')", "'c,a'", other("a,c")),
            ("SET('a','b','c')", "''", other("")),
            ("UUID", "'550E8400-E29B-41D4-A716-446655440000'", Value::Uuid("550e8400-e29b-41d4-a716-446655440000".into())),
            ("INET6", "'2001:DB8::1'", other("2001:db8::1")),
            ("INET4", "'10.0.0.1'", other("10.0.0.1")),
            ("POINT", "ST_GeomFromText('POINT(1 -2.5)')", other("POINT(1 -2.5)")),
            (
                "GEOMETRY",
                "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(0 0),LINESTRING(0 0,1 1))')",
                other("GEOMETRYCOLLECTION(POINT(0 0),LINESTRING(0 0,1 1))"),
            ),
            ("POLYGON", "ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))', 4326)", other("POLYGON((0 0,1 0,1 1,0 0))")),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times() {
    check(
        &Database::mariadb().await,
        &[
            ("DATE", "'2024-02-29'", Value::Date("2024-02-29".into())),
            ("DATE", "'0000-00-00'", other("0000-00-00")),
            ("DATE", "'2024-00-10'", other("2024-00-10")),
            ("DATE", "'2023-02-31'", Value::Date("2023-02-31".into())),
            ("DATE", "'9999-12-31'", Value::Date("9999-12-31".into())),
            ("TIME", "'23:59:59'", Value::Time("23:59:59".into())),
            ("TIME", "'-838:59:59'", other("-838:59:59")),
            ("TIME(6)", "'24:00:00.000001'", other("24:00:00.000001")),
            ("TIME(6)", "'838:59:59.999999'", other("838:59:59.999999")),
            ("TIME(6)", "'01:02:03.000004'", Value::Time("01:02:03.000004".into())),
            ("DATETIME", "'1000-01-01 00:00:00'", Value::Datetime("1000-01-01T00:00:00".into())),
            ("DATETIME(6)", "'9999-12-31 23:59:59.999999'", Value::Datetime("9999-12-31T23:59:59.999999".into())),
            ("DATETIME", "'0000-00-00 00:00:00'", other("0000-00-00 00:00:00")),
            ("TIMESTAMP(6) NULL", "'2024-03-31 02:30:00.5'", Value::Timestamp("2024-03-31T02:30:00.500000Z".into())),
            ("TIMESTAMP NULL", "'2038-01-19 03:14:07'", Value::Timestamp("2038-01-19T03:14:07Z".into())),
            ("TIMESTAMP NULL", "'0000-00-00 00:00:00'", other("0000-00-00 00:00:00")),
            ("YEAR", "2024", Value::Int64(2024)),
            ("YEAR", "'0000'", Value::Int64(0)),
            ("YEAR", "1901", Value::Int64(1901)),
        ],
    )
    .await;
}

#[derive(Clone, Debug)]
struct Row {
    integer: i64,
    unsigned: u64,
    real: f64,
    single: f32,
    digits: (bool, Vec<u8>),
    text: String,
    bytes: Vec<u8>,
    bits: u64,
    day: (u32, u32, u32),
    micros: i64,
}

fn rows() -> impl Strategy<Value = Row> {
    let text = prop::collection::vec(any::<char>(), 0..30).prop_map(|chars| chars.into_iter().collect::<String>());
    let real = any::<u64>().prop_map(f64::from_bits).prop_filter("MariaDB has finite, normal numbers", |real| real.is_normal());
    let single =
        any::<u32>().prop_map(f32::from_bits).prop_filter("MariaDB has finite, normal numbers", |single| single.is_normal());
    let digits = (any::<bool>(), prop::collection::vec(0..10_u8, 65));
    let day = (1..10_000_u32, 1..13_u32, 1..29_u32);
    let micros = -3_020_399_999_999..=3_020_399_999_999_i64;
    let bytes = prop::collection::vec(any::<u8>(), 0..60);
    (any::<i64>(), any::<u64>(), real, single, digits, text, bytes, any::<u64>(), day, micros).prop_map(
        |(integer, unsigned, real, single, digits, text, bytes, bits, day, micros)| Row {
            integer,
            unsigned,
            real,
            single,
            digits,
            text,
            bytes,
            bits,
            day,
            micros,
        },
    )
}

fn cells(row: &Row) -> Vec<(String, Value)> {
    let digits: String = row.digits.1.iter().map(|digit| char::from(b'0' + digit)).collect();
    let whole = digits[..35].trim_start_matches('0');
    let sign = if row.digits.0 && digits.bytes().any(|digit| digit != b'0') { "-" } else { "" };
    let number = format!("{sign}{}.{}", if whole.is_empty() { "0" } else { whole }, &digits[35..]);
    let (year, month, day) = row.day;
    let date = format!("{year:04}-{month:02}-{day:02}");
    let (seconds, micros) = (row.micros.abs() / 1_000_000, row.micros.abs() % 1_000_000);
    let clock = |hours: i64| format!("{hours:02}:{:02}:{:02}.{micros:06}", seconds / 60 % 60, seconds % 60);
    let time = format!("{}{}", if row.micros < 0 { "-" } else { "" }, clock(seconds / 3600));
    let daily = clock(seconds / 3600 % 24);
    let within_a_day = (0..=86_400_000_000).contains(&row.micros);
    let unsigned = i64::try_from(row.unsigned).map_or_else(|_| decimal(&row.unsigned.to_string()), Value::Int64);
    vec![
        (row.integer.to_string(), Value::Int64(row.integer)),
        (row.unsigned.to_string(), unsigned),
        (format!("{:e}", row.real), Value::Float64(row.real)),
        (format!("{:e}", f64::from(row.single)), Value::Float64(row.single.into())),
        (number.clone(), decimal(&number)),
        (format!("CONVERT(X'{}' USING utf8mb4)", hex(row.text.as_bytes())), text(&row.text)),
        (format!("X'{}'", hex(&row.bytes)), Value::Bytes(row.bytes.clone())),
        (row.bits.to_string(), other(&format!("{:064b}", row.bits))),
        (format!("'{date}'"), Value::Date(date.clone())),
        (format!("'{time}'"), if within_a_day { Value::Time(time) } else { other(&time) }),
        (format!("'{date} {daily}'"), Value::Datetime(format!("{date}T{daily}"))),
    ]
}

#[test]
fn any_value_survives() {
    let types = [
        "BIGINT",
        "BIGINT UNSIGNED",
        "DOUBLE",
        "FLOAT",
        "DECIMAL(65,30)",
        "TEXT",
        "BLOB",
        "BIT(64)",
        "DATE",
        "TIME(6)",
        "DATETIME(6)",
    ];
    property(Database::mariadb, &types, rows(), cells);
}
