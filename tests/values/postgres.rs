//! PostgreSQL's types.

use proptest::prelude::*;

// What is tried on each version is in this file itself.
use super::postgres as cases;
use super::{Database, Value, check, hex, property};

crate::on_databases!([postgres postgres17 postgres18] numbers, texts_and_bytes, xml, times, derived_types);

fn other(text: &str) -> Value {
    Value::Other(text.into())
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn decimal(text: &str) -> Value {
    Value::Decimal(text.into())
}

async fn numbers(database: Database) {
    let wide = "123456789012345678901234567890123456789012345678901234567890.123456789012345678901234567890";
    let quoted = format!("'{wide}'");
    check(
        &database,
        &[
            ("boolean", "true", Value::Boolean(true)),
            ("boolean", "false", Value::Boolean(false)),
            ("boolean", "NULL", Value::Null),
            ("int2", "-32768", Value::Int64(-32768)),
            ("int4", "2147483647", Value::Int64(2_147_483_647)),
            ("int8", "'-9223372036854775808'", Value::Int64(i64::MIN)),
            ("int8", "9223372036854775807", Value::Int64(i64::MAX)),
            ("float4", "0.1", Value::Float64(0.1_f32.into())),
            ("float4", "'-0'", Value::Float64(-0.0)),
            ("float4", "3.4028235e38", Value::Float64(f32::MAX.into())),
            ("float4", "1e-45", Value::Float64(f32::from_bits(1).into())),
            ("float8", "'-0'", Value::Float64(-0.0)),
            ("float8", "5e-324", Value::Float64(5e-324)),
            ("float8", "1.7976931348623157e308", Value::Float64(f64::MAX)),
            ("float8", "0.30000000000000004", Value::Float64(0.1 + 0.2)),
            ("float8", "'NaN'", Value::Float64(f64::NAN)),
            ("float8", "'-Infinity'", Value::Float64(f64::NEG_INFINITY)),
            ("numeric", &quoted, decimal(wide)),
            ("numeric", "'-0.000'", decimal("0.000")),
            ("numeric", "1.500", decimal("1.500")),
            ("numeric", "'NaN'", other("NaN")),
            ("numeric", "'-Infinity'", other("-Infinity")),
            ("numeric(10, 2)", "1.5", decimal("1.50")),
            ("numeric(3, -2)", "12345", decimal("12300")),
            ("money", "'-1234.56'", other("-$1,234.56")),
            ("oid", "4294967295", other("4294967295")),
            ("bit(5)", "B'10110'", other("10110")),
            ("bit varying", "B''", other("")),
            ("bit varying(99)", "B'0001'", other("0001")),
        ],
    )
    .await;
}

async fn texts_and_bytes(database: Database) {
    let big = format!("'{}'", "ü".repeat(100_000));
    let text_of_8_mib = "repeat('0123456789abcdef', 524288)";
    check(
        &database,
        &[
            ("text", "''", text("")),
            ("text", "E' a\\n\\t\\\\''\"ü日 '", text(" a\n\t\\'\"ü日 ")),
            ("text", &big, text(&"ü".repeat(100_000))),
            ("text", text_of_8_mib, text(&"0123456789abcdef".repeat(524_288))),
            ("varchar(5)", "'ab  '", text("ab  ")),
            ("char(5)", "'ab'", text("ab   ")),
            ("bpchar", "'ab  '", text("ab  ")),
            ("char(3)[]", "'{a,NULL}'", other("{\"a  \",NULL}")),
            ("\"char\"", "'x'", other("x")),
            ("\"char\"", "''", other("")),
            ("name", "'a name'", text("a name")),
            ("bytea", "'\\x00ff00'", Value::Bytes(vec![0, 255, 0])),
            ("bytea", "''", Value::Bytes(vec![])),
            (
                "bytea",
                "convert_to(repeat('0123456789abcdef', 524288), 'UTF8')",
                Value::Bytes("0123456789abcdef".repeat(524_288).into()),
            ),
            ("json", "'{\"b\" : 1,  \"b\":[2 ]}'", Value::Json("{\"b\" : 1,  \"b\":[2 ]}".into())),
            ("json", "'null'", Value::Json("null".into())),
            ("jsonb", "'{\"b\" : 1,  \"b\":12345678901234567890.10}'", Value::Json("{\"b\": 12345678901234567890.10}".into())),
            ("uuid", "'550E8400E29B41D4A716446655440000'", Value::Uuid("550e8400-e29b-41d4-a716-446655440000".into())),
            ("tsvector", "'a:1A fat:2 cat:3'", other("'a':1A 'cat':3 'fat':2")),
            ("tsquery", "'a & !b'", other("'a' & !'b'")),
            ("jsonpath", "'$.a[*]'", other("$.\"a\"[*]")),
        ],
    )
    .await;
}

/// Not every server is built with it.
async fn xml(database: Database) {
    let built_with = "SELECT count(*) FROM pg_config WHERE name = 'CONFIGURE' AND setting LIKE '%--with-libxml%'";
    if database.number(built_with).await == 1 {
        check(&database, &[("xml", "'<a>1</a>'", other("<a>1</a>"))]).await;
    }
}

async fn times(database: Database) {
    check(
        &database,
        &[
            ("date", "'2024-02-29'", Value::Date("2024-02-29".into())),
            ("date", "'infinity'", other("infinity")),
            ("date", "'0044-03-15 BC'", other("0044-03-15 BC")),
            ("date", "'12000-01-01'", other("12000-01-01")),
            ("time", "'23:59:59.999999'", Value::Time("23:59:59.999999".into())),
            ("time", "'24:00:00'", Value::Time("24:00:00".into())),
            ("time(2)", "'01:02:03.456'", Value::Time("01:02:03.46".into())),
            ("timetz", "'04:05:06.5-08:30'", other("04:05:06.5-08:30")),
            ("timestamp", "'2024-02-29 12:00:00.000001'", Value::Datetime("2024-02-29T12:00:00.000001".into())),
            ("timestamp", "'-infinity'", other("-infinity")),
            ("timestamp", "'12000-01-01 00:00:00'", other("12000-01-01 00:00:00")),
            ("timestamptz", "'2024-07-01 12:00:00+05:30'", Value::Timestamp("2024-07-01T06:30:00Z".into())),
            ("timestamptz", "'2024-07-01 12:00:00.5 Europe/Berlin'", Value::Timestamp("2024-07-01T10:00:00.5Z".into())),
            ("timestamptz", "'infinity'", other("infinity")),
            ("timestamptz", "'0044-03-15 12:00:00+00 BC'", other("0044-03-15 12:00:00+00 BC")),
            ("interval", "'1 year 2 mons -3 days 04:05:06.789'", other("1 year 2 mons -3 days +04:05:06.789")),
            ("interval", "'-178000000 years'", other("-178000000 years")),
            ("interval day to second(3)", "'1 02:03:04.5678'", other("1 day 02:03:04.568")),
        ],
    )
    .await;
}

async fn derived_types(database: Database) {
    database
        .run(
            "CREATE TYPE mood AS ENUM ('sad', 'so so', 'it''s ok'); CREATE TYPE pair AS (a int, \"B c\" text); \
        CREATE DOMAIN code AS char(4); CREATE DOMAIN longer AS code; CREATE DOMAIN price AS numeric(12, 3); \
        CREATE DOMAIN moods AS mood[]; CREATE SCHEMA odd; CREATE TYPE odd.uuid AS ENUM ('x'); \
        CREATE EXTENSION IF NOT EXISTS hstore; CREATE EXTENSION IF NOT EXISTS citext",
        )
        .await;
    check(
        &database,
        &[
            ("mood", "'it''s ok'", other("it's ok")),
            ("mood[]", "'{sad,\"so so\",NULL}'", other("{sad,\"so so\",NULL}")),
            ("pair", "ROW(1, 'a,\"b\"')", other("(1,\"a,\"\"b\"\"\")")),
            ("pair", "ROW(NULL, NULL)", other("(,)")),
            ("pair[]", "ARRAY[ROW(1, 'x')::pair]", other("{\"(1,x)\"}")),
            ("code", "'ab'", text("ab  ")),
            ("longer", "'ab'", text("ab  ")),
            ("price", "1.5", decimal("1.500")),
            ("moods", "'{sad}'", other("{sad}")),
            ("odd.uuid", "'x'", other("x")),
            ("int[]", "'{1,NULL,3}'", other("{1,NULL,3}")),
            ("int[]", "'{}'", other("{}")),
            ("int[]", "'[0:1][-1:0]={{1,2},{3,4}}'", other("[0:1][-1:0]={{1,2},{3,4}}")),
            ("text[]", "ARRAY['a,b', '', 'NULL', NULL, 'q\\\"uote']", other(r#"{"a,b","","NULL",NULL,"q\\\"uote"}"#)),
            ("bytea[]", "ARRAY['\\x00ff'::bytea]", other("{\"\\\\x00ff\"}")),
            ("float8[]", "ARRAY[0.30000000000000004, 'NaN', '-0']::float8[]", other("{0.30000000000000004,NaN,-0}")),
            ("timestamptz[]", "ARRAY['2024-01-01 00:00:00+01'::timestamptz]", other("{\"2023-12-31 23:00:00+00\"}")),
            ("int4range", "'[1,5]'", other("[1,6)")),
            ("tstzrange", "'[2024-01-01 00:00:00+00,)'", other("[\"2024-01-01 00:00:00+00\",)")),
            ("int4multirange", "'{[1,2],[8,9]}'", other("{[1,3),[8,10)}")),
            ("inet", "'10.0.0.1'", other("10.0.0.1")),
            ("inet", "'10.1.2.3/8'", other("10.1.2.3/8")),
            ("cidr", "'10.0.0.0/8'", other("10.0.0.0/8")),
            ("macaddr", "'08:00:2B:01:02:03'", other("08:00:2b:01:02:03")),
            ("macaddr8", "'08:00:2b:01:02:03:04:05'", other("08:00:2b:01:02:03:04:05")),
            ("point", "'(0.1,-2)'", other("(0.1,-2)")),
            ("polygon", "'((0,0),(1,1),(2,0))'", other("((0,0),(1,1),(2,0))")),
            ("circle", "'<(0,0),1e-300>'", other("<(0,0),1e-300>")),
            ("hstore", "'a=>\"1,2\", b=>NULL'", other("\"a\"=>\"1,2\", \"b\"=>NULL")),
            ("citext", "'MiXed'", other("MiXed")),
            ("regclass", "'pg_class'", other("pg_class")),
            ("pg_lsn", "'16/B374D848'", other("16/B374D848")),
        ],
    )
    .await;
}

#[derive(Clone, Debug)]
struct Row {
    integer: i64,
    real: u64,
    single: u32,
    digits: (bool, Vec<u8>, Vec<u8>),
    text: String,
    bytes: Vec<u8>,
    day: (i32, u32, u32),
    clock: u64,
    array: Vec<Option<String>>,
}

fn rows() -> impl Strategy<Value = Row> {
    let digits = (any::<bool>(), prop::collection::vec(0..10_u8, 0..70), prop::collection::vec(0..10_u8, 0..40));
    let character = prop_oneof![any::<char>(), Just('\''), Just('"'), Just('\\'), Just(','), Just(' ')];
    let text = prop::collection::vec(character.prop_filter("PostgreSQL has no NUL", |c| *c != '\0'), 0..30)
        .prop_map(|chars| chars.into_iter().collect::<String>());
    let day = (-4700..290_000, 1..13_u32, 1..29_u32).prop_filter("there is no year 0", |day| day.0 != 0);
    let bytes = prop::collection::vec(any::<u8>(), 0..60);
    let array = prop::collection::vec(prop::option::of(text.clone()), 0..5);
    (any::<i64>(), any::<u64>(), any::<u32>(), digits, text, bytes, day, 0..86_400_000_000_u64, array).prop_map(
        |(integer, real, single, digits, text, bytes, day, clock, array)| Row {
            integer,
            real,
            single,
            digits,
            text,
            bytes,
            day,
            clock,
            array,
        },
    )
}

fn number(&(negative, ref whole, ref fraction): &(bool, Vec<u8>, Vec<u8>)) -> String {
    let join = |digits: &[u8]| digits.iter().map(|digit| char::from(b'0' + digit)).collect::<String>();
    let whole = join(whole);
    let whole = whole.trim_start_matches('0');
    let zero = whole.is_empty() && fraction.iter().all(|digit| *digit == 0);
    let mut text = String::from(if negative && !zero { "-" } else { "" });
    text.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(&join(fraction));
    }
    text
}

fn quoted(text: &str) -> String {
    format!("convert_from('\\x{}', 'UTF8')", hex(text.as_bytes()))
}

fn float(real: f64) -> String {
    if real.is_nan() { "'NaN'".into() } else { format!("'{real:e}'").replace("inf", "Infinity") }
}

/// Returns a date, a time and an era as PostgreSQL writes them, and whether RFC 3339 can express them.
fn moment(row: &Row) -> (String, String, String, bool) {
    let (year, month, day) = row.day;
    let (seconds, micros) = (row.clock / 1_000_000, row.clock % 1_000_000);
    let mut clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if micros > 0 {
        clock.push_str(format!(".{micros:06}").trim_end_matches('0'));
    }
    let date = format!("{:04}-{month:02}-{day:02}", year.abs());
    let era = if year < 0 { " BC" } else { "" };
    (date, clock, era.into(), (1..=9999).contains(&year))
}

fn cells(row: &Row) -> Vec<(String, Value)> {
    let (date, clock, era, plain) = moment(row);
    let single = f32::from_bits(row.single);
    let array: Vec<String> = row.array.iter().map(|item| item.as_ref().map_or("NULL".into(), |item| quoted(item))).collect();
    let escaped = |item: &String| format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\""));
    let plain_item = |item: &String| {
        let special = |c: char| "{},\"\\ \t\n\r\x0b\x0c".contains(c);
        !item.is_empty() && !item.contains(special) && !item.eq_ignore_ascii_case("null")
    };
    let item = |item: &Option<String>| match item {
        None => "NULL".into(),
        Some(item) if plain_item(item) => item.clone(),
        Some(item) => escaped(item),
    };
    let printed: Vec<String> = row.array.iter().map(item).collect();
    let number = number(&row.digits);
    let temporal = |text: String, value: Value| (format!("'{text}'"), if plain { value } else { other(&text) });
    vec![
        (format!("'{}'", row.integer), Value::Int64(row.integer)),
        (float(f64::from_bits(row.real)), Value::Float64(f64::from_bits(row.real))),
        (
            if single.is_nan() { "'NaN'".into() } else { format!("'{single:e}'").replace("inf", "Infinity") },
            Value::Float64(single.into()),
        ),
        (format!("'{number}'"), decimal(&number)),
        (quoted(&row.text), text(&row.text)),
        (format!("'\\x{}'", hex(&row.bytes)), Value::Bytes(row.bytes.clone())),
        temporal(format!("{date}{era}"), Value::Date(date.clone())),
        (format!("'{clock}'"), Value::Time(clock.clone())),
        temporal(format!("{date} {clock}{era}"), Value::Datetime(format!("{date}T{clock}"))),
        temporal(format!("{date} {clock}+00{era}"), Value::Timestamp(format!("{date}T{clock}Z"))),
        (format!("ARRAY[{}]::text[]", array.join(", ")), other(&format!("{{{}}}", printed.join(",")))),
    ]
}

#[test]
fn any_value_survives() {
    let types = ["int8", "float8", "float4", "numeric", "text", "bytea", "date", "time", "timestamp", "timestamptz", "text[]"];
    property(Database::postgres, &types, rows(), cells);
}
