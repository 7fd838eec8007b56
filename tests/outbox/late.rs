//! Rows that appear behind the scan's position: late commits and random keys.

mod cases {
    use std::collections::HashSet;

    use sqlx::Executor as _;

    use crate::harness::database::{Database, System};
    use crate::harness::lane::{Relay, claim, drain, keys, nothing, orders, sent, settle, source};

    pub async fn a_row_behind_the_position_is_found(database: Database) {
        database.orders(6).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 4).await;
        database.run("INSERT INTO order_placed VALUES (-7, 'late', '')").await;
        settle(&mut worker, &batch, &sent(&batch)).await;
        assert_eq!(drain(&mut worker, 4).await, ["5", "6", "-7"]);
        database.run("INSERT INTO order_placed VALUES (3, 'late', '')").await;
        assert_eq!(drain(&mut worker, 4).await, ["3"]);
    }

    /// A key inserted into a claimed or settled range is not lost.
    pub async fn a_row_within_a_settled_range_is_found(database: Database) {
        database.run("CREATE TABLE order_placed (id BIGINT PRIMARY KEY); INSERT INTO order_placed VALUES (10), (20), (30)").await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 3).await;
        database.run("INSERT INTO order_placed VALUES (15), (25)").await;
        nothing(&mut worker).await;
        assert_eq!(settle(&mut worker, &batch, &sent(&batch)).await, 3);
        assert_eq!(drain(&mut worker, 3).await, ["15", "25"]);
    }

    pub async fn a_transaction_that_commits_late_is_found(database: Database) {
        if database.system == System::Sqlite {
            return; // one writer at a time: what commits later has begun later
        }
        database.orders(0).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let (early, late) =
            ("INSERT INTO order_placed VALUES (1, 'slow', '')", "INSERT INTO order_placed VALUES (2, 'quick', '')");
        match database.system {
            System::Mariadb => {
                let mut slow = database.mariadb_connection().await;
                slow.execute(sqlx::AssertSqlSafe(format!("BEGIN; {early}"))).await.unwrap();
                database.run(late).await;
                assert_eq!(drain(&mut worker, 4).await, ["2"]);
                slow.execute("COMMIT").await.unwrap();
            }
            _ => {
                let mut slow = database.postgres_connection().await;
                slow.execute(sqlx::AssertSqlSafe(format!("BEGIN; {early}"))).await.unwrap();
                database.run(late).await;
                assert_eq!(drain(&mut worker, 4).await, ["2"]);
                slow.execute("COMMIT").await.unwrap();
            }
        }
        assert_eq!(drain(&mut worker, 4).await, ["1"]);
    }

    pub async fn random_keys_inserted_during_a_scan_are_found(database: Database) {
        let kind = database.either("TEXT", "uuid", "CHAR(36)");
        database.run(&format!("CREATE TABLE random (id {kind} PRIMARY KEY, n INT)")).await;
        let relay = Relay::open(&database, &source("random")).await;
        let mut worker = relay.worker();
        let mut random = fastrand::Rng::with_seed(7);
        let mut seen = Vec::new();
        let mut expected = HashSet::new();
        for round in 0..30 {
            let rows: Vec<String> = (0..random.usize(0..12))
                .map(|_| {
                    let id = uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid().to_string();
                    let row = format!("('{id}', {round})");
                    expected.insert(id);
                    row
                })
                .collect();
            if !rows.is_empty() {
                database.run(&format!("INSERT INTO random VALUES {}", rows.join(", "))).await;
            }
            if let signalbus::outbox::Claimed::Batch(batch) = worker.claim(5, None).await.unwrap() {
                seen.extend(keys(&batch));
                settle(&mut worker, &batch, &sent(&batch)).await;
            }
        }
        seen.extend(drain(&mut worker, 5).await);
        assert_eq!(seen.len(), expected.len(), "a row was sent twice or never");
        assert_eq!(seen.into_iter().collect::<HashSet<_>>(), expected);
    }
}

crate::on_each_database!(
    a_row_behind_the_position_is_found,
    a_row_within_a_settled_range_is_found,
    a_transaction_that_commits_late_is_found,
    random_keys_inserted_during_a_scan_are_found,
);
