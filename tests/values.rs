//! Values: every value of a column arrives exactly, and survives dead-lettering, redriving and an upgrade.

mod mariadb;
mod postgres;
mod sqlite;

use crate::harness::database::{Database, System};
use crate::harness::lane::{Relay, burials, claim, settle, source};
use signalbus::outbox::Batch;
use signalbus::settlement::Settlement;
use signalbus::signal::Value;

/// A column type, a value as SQL, and the expected value.
type Case<'a> = (&'a str, &'a str, Value);

/// Compares bit by bit: `-0.0` differs from `0.0`, and NaN equals NaN.
fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Float64(one), Value::Float64(two)) => one.to_bits() == two.to_bits() || one.is_nan() && two.is_nan(),
        _ => one == two,
    }
}

/// Creates one table with a column per type and a row per case, and checks every cell.
async fn check(database: &Database, cases: &[Case<'_>]) {
    let mut types: Vec<&str> = Vec::new();
    for (kind, ..) in cases {
        if !types.contains(kind) {
            types.push(kind);
        }
    }
    let mut rows = Vec::new();
    for (kind, literal, expected) in cases {
        let place = types.iter().position(|known| known == kind).unwrap();
        let cell = |n: usize| if n == place { (literal.to_string(), expected.clone()) } else { ("NULL".into(), Value::Null) };
        rows.push((0..types.len()).map(cell).collect());
    }
    check_rows(database, &types, &rows).await;
    check_upgrade(database, &types).await;
}

/// Lets version 1 of the side tables bury the rows, and checks that `migrate` puts them back as they were.
async fn check_upgrade(database: &Database, types: &[&str]) {
    let print = fingerprint(database.system, types);
    let before = database.lines(&print).await;
    database.return_to_version_1().await;
    database.bury_by_version_1("OrderPlaced", "things", "CAST(t.id AS CHAR(9))").await;
    assert_eq!(database.count("things").await, 0);
    let outbox = signalbus::outbox::Outbox::open(&database.url, 2).unwrap();
    assert!(outbox.migrate().await.unwrap());
    let upgrade = outbox.upgrade(&[source("things")]).await.unwrap();
    assert_eq!((upgrade.restored, upgrade.left), (before.len() as u64, vec![]));
    for (before, after) in before.iter().zip(database.lines(&print).await) {
        assert_eq!(before, &after, "after the upgrade");
    }
    let relay = Relay::open(database, &source("things")).await;
    assert_eq!(relay.lane.sweep(0, 1000).await.unwrap(), (None, false));
}

/// Creates a table with a column per type and these rows; checks every cell, dead-letters and redrives the
/// rows, and checks that nothing has changed.
async fn check_rows(database: &Database, types: &[&str], rows: &[Vec<(String, Value)>]) {
    database.run("DROP TABLE IF EXISTS things; DELETE FROM signalbus_claim; DELETE FROM signalbus_hold").await;
    let columns: Vec<String> = types.iter().enumerate().map(|(n, kind)| format!("c{n} {kind}")).collect();
    database.run(&format!("CREATE TABLE things (id INT PRIMARY KEY, {})", columns.join(", "))).await;
    let mut script = String::from(if database.system == System::Mariadb {
        "SET sql_mode = 'PIPES_AS_CONCAT,ALLOW_INVALID_DATES';"
    } else {
        ""
    });
    for (n, row) in rows.iter().enumerate() {
        let literals: Vec<&str> = row.iter().map(|(literal, _)| literal.as_str()).collect();
        script.push_str(&format!("INSERT INTO things VALUES ({n}, {});\n", literals.join(", ")));
    }
    database.run(&script).await;
    let print = fingerprint(database.system, types);
    let before = database.lines(&print).await;
    assert_eq!(before.len(), rows.len());
    let relay = Relay::open(database, &source("things")).await;
    let mut worker = relay.worker();
    let batch = claim(&mut worker, rows.len()).await;
    compare(types, rows, &batch);
    settle(&mut worker, &batch, &burials(&batch)).await;
    let letters = relay.outbox.dead_letters(&[], rows.len()).await.unwrap();
    assert_eq!(letters.len(), rows.len());
    for letter in &letters {
        let shown = relay.lane.dead_row(letter).await.unwrap().unwrap();
        assert_eq!(shown.len(), types.len() + 1);
    }
    assert_eq!(relay.lane.sweep(0, 1000).await.unwrap(), (None, false));
    let letters: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
    assert_eq!(relay.outbox.redrive(&letters).await.unwrap(), rows.len() as u64);
    for ((before, after), row) in before.iter().zip(database.lines(&print).await).zip(rows) {
        let row: Vec<&(String, Value)> = row.iter().filter(|(literal, _)| literal != "NULL" && literal.len() < 1000).collect();
        assert_eq!(before, &after, "after dead letter and redrive: {row:?}");
    }
    let batch = claim(&mut worker, rows.len()).await;
    compare(types, rows, &batch);
    settle(&mut worker, &batch, &Settlement::default()).await;
}

fn compare(types: &[&str], rows: &[Vec<(String, Value)>], batch: &Batch) {
    assert_eq!(batch.signals.len(), rows.len());
    for (signal, row) in batch.signals.iter().zip(rows) {
        for (n, (literal, expected)) in row.iter().enumerate() {
            let arrived = &signal.values[n + 1];
            let short = &literal[..literal.floor_char_boundary(200)];
            assert!(
                same(arrived, expected),
                "{} {short}: {:.500} instead of {:.500}",
                types[n],
                format!("{arrived:?}"),
                format!("{expected:?}")
            );
        }
    }
}

/// Returns a query that prints each row as exactly as the database can.
fn fingerprint(system: System, types: &[&str]) -> String {
    let column = |(n, kind): (usize, &&str)| match system {
        System::Sqlite => format!("typeof(c{n}) || CASE typeof(c{n}) WHEN 'real' THEN quote(c{n}) ELSE hex(c{n}) END"),
        _ if kind.starts_with("FLOAT") || kind.starts_with("DOUBLE") => format!("COALESCE(CAST(c{n} * 1e0 AS CHAR), 'NULL')"),
        _ if kind.starts_with("BIT") => format!("COALESCE(BIN(c{n} + 0), 'NULL')"),
        _ => format!("COALESCE(MD5(CAST(c{n} AS BINARY)), 'NULL')"),
    };
    let columns: Vec<String> = types.iter().enumerate().map(column).collect();
    match system {
        System::Sqlite => format!("SELECT {} FROM things ORDER BY id", columns.join(" || '|' || ")),
        System::Postgres => "SELECT encode(record_send(things), 'hex') FROM things ORDER BY id".into(),
        System::Mariadb => format!("SELECT CONCAT_WS('|', {}) FROM things ORDER BY id", columns.join(", ")),
    }
}

/// Checks batches of random rows.
fn property<R: std::fmt::Debug>(
    database: impl AsyncFn() -> Database,
    types: &[&str],
    rows: impl proptest::strategy::Strategy<Value = R>,
    cells: impl Fn(&R) -> Vec<(String, Value)>,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let database = runtime.block_on(database());
    let config =
        proptest::test_runner::Config { cases: 12, failure_persistence: None, max_shrink_iters: 60, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let batches = proptest::collection::vec(rows, 1..25);
    let outcome = runner.run(&batches, |batch| {
        let rows: Vec<Vec<(String, Value)>> = batch.iter().map(&cells).collect();
        runtime.block_on(check_rows(&database, types, &rows));
        Ok(())
    });
    outcome.unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
