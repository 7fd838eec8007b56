//! SQLite's storage classes, in columns of every affinity.

use proptest::prelude::*;

use super::{Database, Value, check, hex, property};

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_storage_class_in_any_column() {
    let mut cases = Vec::new();
    for kind in [
        "",
        "BLOB",
        "TEXT",
        "INTEGER",
        "BIGINT",
        "REAL",
        "NUMERIC",
        "BOOLEAN",
        "DATETIME",
        "JSON",
        "DECIMAL(10,5)",
        "VARCHAR(10)",
    ] {
        let textual = matches!(kind, "TEXT" | "VARCHAR(10)");
        let real = kind == "REAL";
        let integer = |number: i64| match (textual, real) {
            (true, _) => text(&number.to_string()),
            #[expect(clippy::cast_precision_loss, reason = "that is what SQLite does")]
            (_, true) => Value::Float64(number as f64),
            _ => Value::Int64(number),
        };
        cases.extend([
            (kind, "NULL", Value::Null),
            (kind, "0", integer(0)),
            (kind, "9223372036854775807", integer(i64::MAX)),
            (kind, "-9223372036854775808", integer(i64::MIN)),
            (kind, "X''", Value::Bytes(vec![])),
            (kind, "X'00FF'", Value::Bytes(vec![0, 255])),
            (kind, "'it''s'", text("it's")),
            (kind, "''", text("")),
            (kind, "'a' || char(0) || 'b'", text("a\0b")),
            (kind, "'{\"a\" : 1,  \"a\":2}'", text("{\"a\" : 1,  \"a\":2}")),
            // Text that is not valid UTF-8 is passed on as bytes.
            (kind, "CAST(X'FF41' AS TEXT)", Value::Bytes(vec![0xff, 0x41])),
        ]);
        if !textual {
            cases.extend([
                (kind, "0.30000000000000004", Value::Float64(0.1 + 0.2)),
                (kind, "9e999", Value::Float64(f64::INFINITY)),
                (kind, "-9e999", Value::Float64(f64::NEG_INFINITY)),
            ]);
        }
    }
    cases.extend([
        ("REAL", "-0.0", Value::Float64(0.0)), // SQLite drops the sign of zero in a REAL column
        ("TEXT", "1.5", text("1.5")),
        // SQLite rounds it when storing it.
        ("TEXT", "123456789012345678901234567890", text("1.23456789012346e+29")),
        ("NUMERIC", "'12'", Value::Int64(12)),
        ("NUMERIC", "'1.50'", Value::Float64(1.5)),
        ("", "'12'", text("12")),
        ("BLOB", "zeroblob(8388608)", Value::Bytes(vec![0; 8_388_608])),
        ("TEXT", "printf('%.8388608c', 'x')", text(&"x".repeat(8_388_608))),
    ]);
    check(&Database::sqlite().await, &cases).await;
}

#[derive(Clone, Debug)]
enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

fn cell() -> impl Strategy<Value = Cell> {
    let real = any::<u64>().prop_map(f64::from_bits).prop_filter("SQLite turns NaN into NULL", |real| real.is_normal());
    let chars = prop::collection::vec(prop_oneof![any::<char>(), Just('\0'), Just('\'')], 0..30);
    prop_oneof![
        Just(Cell::Null),
        any::<i64>().prop_map(Cell::Integer),
        real.prop_map(Cell::Real),
        chars.prop_map(|chars| Cell::Text(chars.into_iter().collect())),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(Cell::Bytes),
    ]
}

fn written(cell: &Cell) -> (String, Value) {
    match cell {
        Cell::Null => ("NULL".into(), Value::Null),
        Cell::Integer(number) => (number.to_string(), Value::Int64(*number)),
        // Fewer significant bits: SQLite does not parse every long number to the last bit.
        Cell::Real(real) => {
            let real = f64::from_bits(real.to_bits() & !((1 << 30) - 1));
            let real = if (1e-20..1e20).contains(&real.abs()) { real } else { 1.5 };
            (format!("{real:?}"), Value::Float64(real))
        }
        Cell::Text(text) => (format!("CAST(X'{}' AS TEXT)", hex(text.as_bytes())), Value::Text(text.clone())),
        Cell::Bytes(bytes) => (format!("X'{}'", hex(bytes)), Value::Bytes(bytes.clone())),
    }
}

#[test]
fn any_value_survives() {
    let rows = prop::collection::vec(cell(), 4);
    let cells = |row: &Vec<Cell>| row.iter().map(written).collect();
    property(Database::sqlite, &["", "BLOB", "", "BLOB"], rows, cells);
}
