//! Primary keys of every kind: each row is claimed once, and only that row is deleted.

use crate::harness::database::{Database, System};
use crate::harness::lane::{Relay, attempts, burials, claim, deferred, drain, keys, nothing, sent, settle, source};
use signalbus::settlement::Settlement;
use std::time::Duration;

/// Checks that a table with this definition and these rows has exactly these keys, in any order. Each
/// row is claimed once, deferred, claimed with its attempt, dead-lettered, redriven and deleted.
async fn walk(database: &Database, definition: &str, rows: &[&str], expected: &[&str]) {
    database.run("DROP TABLE IF EXISTS keyed; DELETE FROM signalbus_claim").await;
    database.run(&format!("CREATE TABLE keyed {definition}")).await;
    database.run(&format!("INSERT INTO keyed VALUES {}", rows.join(", "))).await;
    let mut expected: Vec<String> = expected.iter().map(|&key| key.to_owned()).collect();
    expected.sort();
    let relay = Relay::open(database, &source("keyed")).await;
    for limit in [1, 2, 1000] {
        assert_eq!(visit(database, &relay, limit).await, expected, "{definition}, {limit} at a time");
    }
    let mut worker = relay.worker();
    let boundary = worker.boundary().await.unwrap();
    assert!(expected.contains(boundary.as_ref().unwrap()), "{boundary:?}");
    let batch = claim(&mut worker, 1000).await;
    settle(&mut worker, &batch, &burials(&batch)).await;
    nothing(&mut worker).await;
    let letters: Vec<i64> = relay.outbox.dead_letters(&[], 1000).await.unwrap().iter().map(|letter| letter.id).collect();
    assert_eq!(relay.outbox.redrive(&letters).await.unwrap(), expected.len() as u64, "{definition}");
    // Rows are settled one by one, and each settle deletes only its own row.
    for left in (0..expected.len()).rev() {
        let batch = claim(&mut worker, 1).await;
        assert_eq!(settle(&mut worker, &batch, &sent(&batch)).await, 1, "{definition}: {:?}", keys(&batch));
        assert_eq!(database.count("keyed").await, i64::try_from(left).unwrap(), "{definition}");
    }
    assert_eq!(nothing(&mut worker).await, None);
}

/// Claims all rows in several concurrent claims and defers them, twice.
async fn visit(database: &Database, relay: &Relay, limit: usize) -> Vec<String> {
    let mut worker = relay.worker();
    let mut batches = Vec::new();
    while let signalbus::outbox::Claimed::Batch(batch) = worker.claim(limit, None).await.unwrap() {
        batches.push(batch);
    }
    for batch in &batches {
        let defer = (0..batch.signals.len()).map(|n| deferred(batch, n, Duration::from_secs(3600))).collect();
        settle(&mut worker, batch, &Settlement { defer, ..Settlement::default() }).await;
    }
    nothing(&mut worker).await;
    database.make_due().await;
    let batch = claim(&mut worker, 1000).await;
    assert_eq!(batch.signals.len(), batches.iter().map(|batch| batch.signals.len()).sum::<usize>());
    assert!(attempts(&batch).iter().all(|&attempt| attempt == 2), "{:?}", keys(&batch));
    settle(&mut worker, &batch, &Settlement::default()).await;
    database.run("DELETE FROM signalbus_hold WHERE state = 'retry'; DELETE FROM signalbus_claim").await;
    let mut seen: Vec<String> = batches.iter().flat_map(keys).collect();
    seen.sort();
    seen
}

const TEXTS: [&str; 14] = [
    "('a,b')",
    "('a:b')",
    "('100%')",
    "('%2C')",
    "('it''s')",
    "('\"x\"')",
    "('')",
    "('ünïcode')",
    "('日本')",
    "('12')",
    "('012')",
    "('1e3')",
    "('X''00''')",
    "('NULL')",
];
const TEXT_KEYS: [&str; 14] =
    ["a%2Cb", "a%3Ab", "100%25", "%252C", "it's", "\"x\"", "", "ünïcode", "日本", "12", "012", "1e3", "X'00'", "NULL"];

mod cases {
    use super::*;

    pub async fn integers(database: Database) {
        let keys = ["-9223372036854775808", "-1", "0", "1", "2", "10", "9223372036854775807"];
        let rows: Vec<String> = keys.iter().map(|key| format!("({key})")).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        // A literal of that size is not an integer where the sign is an operator.
        let rows = [&["(-9223372036854775807 - 1)"], &rows[1..]].concat();
        walk(&database, "(id BIGINT PRIMARY KEY)", &rows, &keys).await;
        walk(&database, "(id SMALLINT PRIMARY KEY)", &rows[1..6], &keys[1..6]).await;
        if database.system == System::Sqlite {
            walk(&database, "(id INTEGER PRIMARY KEY)", &rows, &keys).await;
            walk(&database, "(id INTEGER PRIMARY KEY) WITHOUT ROWID", &rows, &keys).await;
        }
    }

    pub async fn texts(database: Database) {
        let kinds: &[&str] = match database.system {
            System::Sqlite => &["TEXT", "VARCHAR(40)", "", "BLOB", "TEXT COLLATE NOCASE"],
            System::Postgres => &["text", "varchar(40)", "text COLLATE \"C\"", "name"],
            System::Mariadb => &["VARCHAR(40)", "VARCHAR(40) COLLATE utf8mb4_bin", "VARBINARY(40)"],
        };
        for kind in kinds {
            let mut expected = TEXT_KEYS.map(str::to_owned);
            if kind.starts_with("VARB") {
                let hex =
                    |row: &str| row[2..row.len() - 2].replace("''", "'").bytes().map(|byte| format!("{byte:02X}")).collect();
                expected = TEXTS.map(hex);
            } else if matches!(*kind, "" | "BLOB") {
                // Without an affinity, text must be distinguished from numbers and blobs.
                let literal = |row: &str| row[1..row.len() - 1].replace('%', "%25").replace(',', "%2C").replace(':', "%3A");
                expected = TEXTS.map(literal);
            } else if database.system == System::Sqlite {
                // Text that looks like a blob is distinguished from one.
                expected[12] = "'X''00'''".into();
            }
            let expected = expected.each_ref().map(String::as_str);
            walk(&database, &format!("(id {kind} PRIMARY KEY)"), &TEXTS, &expected).await;
        }
    }

    pub async fn uuids(database: Database) {
        let ids = [
            "00000000-0000-0000-0000-000000000000",
            "550e8400-e29b-41d4-a716-446655440000",
            "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ];
        let texts = ids.map(|id| format!("('{id}')"));
        let texts = texts.each_ref().map(String::as_str);
        let kind = database.either("TEXT", "uuid", "UUID");
        walk(&database, &format!("(id {kind} PRIMARY KEY)"), &texts, &ids).await;
        walk(&database, "(id CHAR(36) PRIMARY KEY)", &texts, &ids).await;
        let hex = ids.map(|id| id.replace('-', "").to_uppercase());
        let bytes = hex.each_ref().map(|hex| match database.system {
            System::Postgres => format!("('\\x{hex}')"),
            _ => format!("(X'{hex}')"),
        });
        let expected = hex.each_ref().map(|hex| match database.system {
            System::Sqlite => format!("X'{hex}'"),
            System::Postgres => format!("\\x{}", hex.to_lowercase()),
            System::Mariadb => hex.clone(),
        });
        let kind = database.either("BLOB", "bytea", "BINARY(16)");
        walk(
            &database,
            &format!("(id {kind} PRIMARY KEY)"),
            &bytes.each_ref().map(String::as_str),
            &expected.each_ref().map(String::as_str),
        )
        .await;
    }

    pub async fn composites(database: Database) {
        let text = database.either("TEXT", "text", "VARCHAR(40)");
        let rows =
            ["('a,b', 1, 10)", "('a,b', 1, 9)", "('a,b', 2, 1)", "('b', -1, 0)", "('', 0, 0)", "(',', 0, 0)", "('%', 5, 5)"];
        let expected = ["1,a%2Cb,10", "1,a%2Cb,9", "2,a%2Cb,1", "-1,b,0", "0,,0", "0,%2C,0", "5,%25,5"];
        let definition = format!("(one {text}, two INT, three BIGINT, PRIMARY KEY (two, one, three))");
        walk(&database, &definition, &rows, &expected).await;
        let (uuid, date) = (database.either("TEXT", "uuid", "UUID"), database.either("TEXT", "date", "DATE"));
        let definition = format!("(a {date}, b {uuid}, c INT, PRIMARY KEY (a, b, c))");
        let id = "550e8400-e29b-41d4-a716-446655440000";
        let rows = ["2024-02-29", "1999-12-31"].map(|day| [1, 2].map(|n| format!("('{day}', '{id}', {n})"))).concat();
        let expected = ["2024-02-29", "1999-12-31"].map(|day| [1, 2].map(|n| format!("{day},{id},{n}"))).concat();
        let borrowed = |texts: &'static [String]| texts.iter().map(String::as_str).collect::<Vec<_>>();
        let (rows, expected): (&'static [String], &'static [String]) = (rows.leak(), expected.leak());
        walk(&database, &definition, &borrowed(rows), &borrowed(expected)).await;
    }

    /// Timestamps contain colons, so their keys are encoded.
    pub async fn decimals_dates_and_timestamps(database: Database) {
        let kind = database.either("TEXT", "numeric(60,20)", "DECIMAL(60,20)");
        let wide = "1234567890123456789012345678901234567890.12345678901234567890";
        let near = "1234567890123456789012345678901234567890.12345678901234567891";
        let rows = [format!("('{wide}')"), format!("('{near}')"), "('-0.50000000000000000000')".to_owned()];
        walk(
            &database,
            &format!("(id {kind} PRIMARY KEY)"),
            &rows.each_ref().map(String::as_str),
            &[wide, near, "-0.50000000000000000000"],
        )
        .await;
        let kind = database.either("TEXT", "timestamp", "DATETIME(6)");
        let rows = ["('2024-02-29 23:59:59.123456')", "('2024-02-29 23:59:59.123457')", "('1970-01-01 00:00:00.000001')"];
        let expected = ["2024-02-29 23%3A59%3A59.123456", "2024-02-29 23%3A59%3A59.123457", "1970-01-01 00%3A00%3A00.000001"];
        walk(&database, &format!("(id {kind} PRIMARY KEY)"), &rows, &expected).await;
        let kind = database.either("REAL", "float8", "DOUBLE");
        let expected = database.either("0.1,1e-300,-2.5", "0.1,1e-300,-2.5", "0.1,1e-300,-2.5");
        let expected = expected.replace("1e-300", database.either("1.0e-300", "1e-300", "1e-300"));
        let expected: Vec<&str> = expected.split(',').collect();
        walk(&database, &format!("(id {kind} PRIMARY KEY)"), &["(1e-1)", "(1e-300)", "(-2.5e0)"], &expected).await;
    }

    pub async fn keys_specific_to_sqlite(database: Database) {
        if database.system != System::Sqlite {
            return;
        }
        let mixed = ["(1)", "('one')", "(1.5)", "(X'00FF')", "('1x')", "(9007199254740993)", "('it''s')", "('X''00''')", "(0.1)"];
        let keys = ["1", "one", "1.5", "X'00FF'", "1x", "9007199254740993", "it's", "'X''00'''", "0.1"];
        walk(&database, "(id INT PRIMARY KEY)", &mixed, &keys).await;
        walk(&database, "(id NUMERIC PRIMARY KEY)", &mixed, &keys).await;
        walk(&database, "(id INT PRIMARY KEY) WITHOUT ROWID", &mixed, &keys).await;
        let mixed = [
            &mixed[..],
            &["('1')", "('1.5')", "(9e999)", "(-9e999)", "(0.30000000000000004)", "('a' || char(0) || 'b')", "('a')"],
        ]
        .concat();
        let undeclared = [
            "1",
            "'one'",
            "1.5",
            "X'00FF'",
            "'1x'",
            "9007199254740993",
            "'it''s'",
            "'X''00'''",
            "0.1",
            "'1'",
            "'1.5'",
            "9.0e+999",
            "-9.0e+999",
            "3.000000000000000445e-01",
            "'a\0b'",
            "'a'",
        ];
        walk(&database, "(id PRIMARY KEY)", &mixed, &undeclared).await;
        walk(&database, "(id PRIMARY KEY, n DEFAULT 1) WITHOUT ROWID".replace(", n DEFAULT 1", "").as_str(), &mixed, &undeclared)
            .await;
        walk(
            &database,
            "(id TEXT PRIMARY KEY)",
            &["('a' || char(0) || 'b')", "('a')", "(X'61')", "('''' || char(0) || 'b')", "('''')"],
            &["a\0b", "a", "X'61'", "'''\0b'", "''''"],
        )
        .await;
        walk(
            &database,
            "(id REAL PRIMARY KEY)",
            &["(0.1)", "(0.30000000000000004)", "(1e22)", "('x')", "(123456789012345678)"],
            &["0.1", "3.000000000000000445e-01", "1.0e+22", "x", "1.2345678901234568e+17"],
        )
        .await;
        walk(&database, "(id INTEGER PRIMARY KEY DESC)", &["(2)", "('two')"], &["2", "two"]).await;
    }

    /// NULL keys do not identify a row.
    pub async fn sqlite_rows_with_a_null_key_are_left_alone(database: Database) {
        if database.system != System::Sqlite {
            return;
        }
        database.run("CREATE TABLE loose (id TEXT PRIMARY KEY); INSERT INTO loose VALUES (NULL), (NULL), ('a')").await;
        let relay = Relay::open(&database, &source("loose")).await;
        assert_eq!(crate::harness::lane::drain(&mut relay.worker(), 5).await, ["a"]);
        assert_eq!(database.count("loose").await, 2);
    }

    /// Nothing can be recorded of such a row: it stays, and is passed over.
    pub async fn sqlite_keys_that_are_not_utf8_are_passed_over(database: Database) {
        if database.system != System::Sqlite {
            return;
        }
        database.run("CREATE TABLE broken (id TEXT PRIMARY KEY); INSERT INTO broken VALUES ('a'), (CAST(X'FF41' AS TEXT))").await;
        let relay = Relay::open(&database, &source("broken")).await;
        assert_eq!(drain(&mut relay.worker(), 5).await, ["a"]);
        assert_eq!((database.count("broken").await, database.count("signalbus_claim").await), (1, 0));
    }

    pub async fn keys_specific_to_postgres(database: Database) {
        if database.system != System::Postgres {
            return;
        }
        database
            .run(
                "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE DOMAIN small AS int CHECK (value < 10); \
            CREATE DOMAIN code AS text",
            )
            .await;
        walk(
            &database,
            "(a mood, b int, PRIMARY KEY (a, b))",
            &["('happy', 1)", "('sad', 2)", "('ok', 3)"],
            &["happy,1", "sad,2", "ok,3"],
        )
        .await;
        walk(&database, "(id small PRIMARY KEY)", &["(1)", "(-5)"], &["1", "-5"]).await;
        walk(&database, "(id code PRIMARY KEY)", &["('a')", "('b,')"], &["a", "b%2C"]).await;
        walk(&database, "(id char(5) PRIMARY KEY)", &["('a')", "('b')"], &["a", "b"]).await;
        walk(&database, "(id inet PRIMARY KEY)", &["('10.0.0.1')", "('::1/64')"], &["10.0.0.1", "%3A%3A1/64"]).await;
        walk(
            &database,
            "(id timestamptz PRIMARY KEY)",
            &["('infinity')", "('2024-01-01 00:00:00+02')", "('0044-03-15 12:00:00+00 BC')"],
            &["infinity", "2023-12-31 22%3A00%3A00+00", "0044-03-15 12%3A00%3A00+00 BC"],
        )
        .await;
        walk(&database, "(id float4 PRIMARY KEY)", &["(0.1)", "('NaN')", "('-Infinity')"], &["0.1", "NaN", "-Infinity"]).await;
        walk(&database, "(id numeric PRIMARY KEY)", &["(1.50)", "('NaN')", "('Infinity')"], &["1.50", "NaN", "Infinity"]).await;
        walk(&database, "(id int[] PRIMARY KEY)", &["('{1,2}')", "('{}')"], &["{1%2C2}", "{}"]).await;
        walk(&database, "(id boolean PRIMARY KEY)", &["(true)", "(false)"], &["true", "false"]).await;
        walk(&database, "(id oid PRIMARY KEY)", &["(1)", "(4294967295)"], &["1", "4294967295"]).await;
        walk(&database, "(id interval PRIMARY KEY)", &["('1 day')", "('-00:00:01')"], &["1 day", "-00%3A00%3A01"]).await;
        // Included columns are not part of the key.
        walk(&database, "(id int, note int, PRIMARY KEY (id) INCLUDE (note))", &["(1, 7)", "(2, 8)"], &["1", "2"]).await;
    }

    pub async fn keys_specific_to_mariadb(database: Database) {
        if database.system != System::Mariadb {
            return;
        }
        walk(
            &database,
            "(id BIGINT UNSIGNED PRIMARY KEY)",
            &["(0)", "(9223372036854775808)", "(18446744073709551615)"],
            &["0", "9223372036854775808", "18446744073709551615"],
        )
        .await;
        // An ENUM sorts by its place, and compares as its text.
        walk(
            &database,
            "(a ENUM('small','big','a') , b INT, PRIMARY KEY (a, b))",
            &["('small', 1)", "('big', 2)", "('a', 3)", "('small', 4)", "('a', 5)"],
            &["small,1", "big,2", "a,3", "small,4", "a,5"],
        )
        .await;
        walk(&database, "(id ENUM('z','b','c','a') PRIMARY KEY)", &["('z')", "('b')", "('c')", "('a')"], &["z", "b", "c", "a"])
            .await;
        walk(&database, "(id SET('z','b') PRIMARY KEY)", &["('z')", "('b')", "('z,b')", "('')"], &["z", "b", "z%2Cb", ""]).await;
        walk(&database, "(id BIT(64) PRIMARY KEY)", &["(b'1')", "(b'0')", "(~0)"], &["1", "0", "18446744073709551615"]).await;
        walk(&database, "(id YEAR PRIMARY KEY)", &["(1901)", "(2155)", "('0000')"], &["1901", "2155", "0000"]).await;
        walk(
            &database,
            "(id TIME(6) PRIMARY KEY)",
            &["('-838:59:59.999999')", "('838:59:59')", "('00:00:00.5')"],
            &["-838%3A59%3A59.999999", "838%3A59%3A59.000000", "00%3A00%3A00.500000"],
        )
        .await;
        walk(
            &database,
            "(id TIMESTAMP(3) PRIMARY KEY)",
            &["('2024-03-31 02:30:00.125')", "('1970-01-01 00:00:01')"],
            &["2024-03-31 02%3A30%3A00.125", "1970-01-01 00%3A00%3A01.000"],
        )
        .await;
        walk(&database, "(id VARCHAR(20) CHARACTER SET latin1 PRIMARY KEY)", &["('é')", "('z')", "('É2')"], &["é", "z", "É2"])
            .await;
        walk(&database, "(id INET6 PRIMARY KEY)", &["('::1')", "('ffff::')"], &["%3A%3A1", "ffff%3A%3A"]).await;
        walk(&database, "(id FLOAT PRIMARY KEY)", &["(0.1)", "(16777216)", "(1.5)"], &["0.10000000149011612", "16777216", "1.5"])
            .await;
        walk(&database, "(id INT(8) ZEROFILL PRIMARY KEY)", &["(5)", "(12345678)"], &["00000005", "12345678"]).await;
        walk(
            &database,
            "(id VARCHAR(20) COLLATE utf8mb4_nopad_bin PRIMARY KEY)",
            &["('a')", "('a ')", "('A')"],
            &["a", "a ", "A"],
        )
        .await;
        walk(&database, "(id TEXT, PRIMARY KEY (id(20)))", &["('a')", "('b')"], &["a", "b"]).await;
    }
}

crate::on_each_version!(
    integers,
    texts,
    uuids,
    composites,
    decimals_dates_and_timestamps,
    keys_specific_to_sqlite,
    sqlite_rows_with_a_null_key_are_left_alone,
    sqlite_keys_that_are_not_utf8_are_passed_over,
    keys_specific_to_postgres,
    keys_specific_to_mariadb,
);
