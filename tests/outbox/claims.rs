//! Claims and settles keep workers and relays apart.

mod cases {
    use std::collections::HashSet;
    use std::time::Duration;

    use signalbus::outbox::{Claimed, Deletions, Settled};
    use signalbus::settlement::Settlement;
    use sqlx::{Connection as _, Executor as _};

    use crate::harness::bus::row_of;
    use crate::harness::database::{Database, System};
    use crate::harness::lane::{Relay, claim, drain, keys, nothing, orders, sent, settle};

    pub async fn a_settled_row_is_deleted(database: Database) {
        database.orders(10).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 4).await;
        assert_eq!(keys(&batch), ["1", "2", "3", "4"]);
        let settlement = Settlement { delete: vec![0, 2], ..Settlement::default() };
        assert_eq!(
            worker.settle(&batch, &settlement).await.unwrap(),
            Settled::Done(Deletions { deleted: 2, ..Deletions::default() })
        );
        assert_eq!(relay.outbox.pending(&orders()).await.unwrap(), 8);
    }

    pub async fn settling_twice_changes_nothing(database: Database) {
        database.orders(10).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 4).await;
        settle(&mut worker, &batch, &Settlement { delete: vec![0], ..Settlement::default() }).await;
        assert_eq!(worker.settle(&batch, &sent(&batch)).await.unwrap(), Settled::Fenced);
        assert_eq!(relay.outbox.pending(&orders()).await.unwrap(), 9);
        assert!(!worker.renew(&batch).await.unwrap());
    }

    pub async fn claims_of_several_relays_never_overlap(database: Database) {
        database.orders(600).await;
        let relays = [Relay::open(&database, &orders()).await, Relay::open(&database, &orders()).await];
        let mut workers = [relays[0].worker(), relays[0].worker(), relays[1].worker(), relays[1].worker()];
        let mut batches = Vec::new();
        for round in 0..8 {
            batches.push(claim(&mut workers[round % 4], 7).await);
        }
        let mut seen = HashSet::new();
        for key in batches.iter().flat_map(keys) {
            assert!(seen.insert(key.clone()), "{key} was claimed twice");
        }
        assert_eq!(seen.len(), 56);
        for (n, batch) in batches.iter().enumerate() {
            settle(&mut workers[(n + 1) % 4], batch, &sent(batch)).await;
        }
        // Each goes on with what it has claimed.
        let left = drain(&mut workers[3], 7).await.len() + drain(&mut workers[0], 7).await.len();
        assert_eq!(left, 544);
        assert_eq!(database.count("signalbus_claim").await, 0);
    }

    pub async fn concurrent_workers_send_every_row_once(database: Database) {
        database.orders(400).await;
        let relays = [Relay::open(&database, &orders()).await, Relay::open(&database, &orders()).await];
        let work = |relay: usize| {
            let mut worker = relays[relay].worker();
            async move { drain(&mut worker, 9).await }
        };
        let seen = futures::future::join_all([work(0), work(1), work(0), work(1)]).await;
        let seen: Vec<String> = seen.into_iter().flatten().collect();
        assert_eq!(seen.len(), 400, "a row was sent twice or never");
        assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 400);
        assert_eq!(relays[0].outbox.pending(&orders()).await.unwrap(), 0);
    }

    /// Only claims of another process are reported as a reason to wait.
    pub async fn nothing_is_due_while_every_row_is_claimed(database: Database) {
        database.orders(5).await;
        let relay = Relay::open(&database, &orders()).await;
        let (mut first, mut second) = (relay.worker(), relay.worker());
        let batch = claim(&mut first, 5).await;
        let Claimed::Nothing { due_in: None, claimed_for: None } = second.claim(5, None).await.unwrap() else {
            panic!("a worker claimed a claimed row, or waits for its own process")
        };
        database.run("UPDATE signalbus_claim SET owner = 'another'").await;
        let Claimed::Nothing { claimed_for: Some(wait), .. } = second.claim(5, None).await.unwrap() else {
            panic!("the claim of another process is not reported")
        };
        assert!(wait <= signalbus::outbox::LEASE && !wait.is_zero(), "{wait:?}");
        settle(&mut first, &batch, &sent(&batch)).await;
        nothing(&mut second).await;
    }

    pub async fn two_signal_types_do_not_see_each_other(database: Database) {
        database.orders(5).await;
        database.run("CREATE TABLE paid (id BIGINT PRIMARY KEY); INSERT INTO paid VALUES (1), (2)").await;
        let orders = Relay::open(&database, &orders()).await;
        let paid = signalbus::outbox::Source { signal: "Paid".into(), table: "paid".into(), ..Default::default() };
        let paid = Relay::open(&database, &paid).await;
        let (mut one, mut two) = (orders.worker(), paid.worker());
        let batch = claim(&mut one, 5).await;
        let other = claim(&mut two, 5).await;
        assert_eq!(keys(&other), ["1", "2"]);
        assert_eq!(row_of(&other.signals[0].id), "Paid:1");
        settle(&mut one, &batch, &sent(&batch)).await;
        settle(&mut two, &other, &sent(&other)).await;
        assert_eq!((database.count("order_placed").await, database.count("paid").await), (0, 0));
    }

    pub async fn claims_do_not_lock_rows(database: Database) {
        database.orders(10).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 10).await;
        let begun = std::time::Instant::now();
        let statements = "UPDATE order_placed SET customer = 'someone else' WHERE id = 1; \
             DELETE FROM order_placed WHERE id = 2; \
             INSERT INTO order_placed VALUES (0, 'new', 'new'), (5000, 'new', 'new'); \
             UPDATE order_placed SET id = 2 WHERE id = 3";
        match database.system {
            System::Sqlite => {
                let options: sqlx::sqlite::SqliteConnectOptions = database.url.replace("&foreign_keys=on", "").parse().unwrap();
                let options = options.busy_timeout(Duration::from_millis(100));
                let mut writer = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
                writer.execute(statements).await.unwrap();
            }
            System::Postgres => database.run(&format!("SET lock_timeout = '100ms'; {statements}")).await,
            System::Mariadb => database.run(&format!("SET innodb_lock_wait_timeout = 1; {statements}")).await,
        }
        assert!(begun.elapsed() < Duration::from_secs(1));
        // Row 1 has another content, and row 3 has become row 2.
        assert_eq!(settle(&mut worker, &batch, &sent(&batch)).await, 7);
        assert_eq!(drain(&mut worker, 10).await, ["5000", "0", "1", "2"]);
    }

    pub async fn the_boundary_leaves_higher_keys_alone(database: Database) {
        database.orders(10).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let boundary = worker.boundary().await.unwrap();
        assert_eq!(boundary.as_deref(), Some("10"));
        database.run("INSERT INTO order_placed VALUES (-5, 'low', ''), (11, 'high', ''), (200, 'high', '')").await;
        let mut seen = Vec::new();
        while let Claimed::Batch(batch) = worker.claim(4, boundary.as_deref()).await.unwrap() {
            seen.extend(keys(&batch));
            settle(&mut worker, &batch, &sent(&batch)).await;
        }
        assert_eq!(seen.len(), 11);
        assert_eq!(drain(&mut worker, 4).await, ["11", "200"]);
        assert_eq!(worker.boundary().await.unwrap(), None);
    }

    pub async fn a_failed_claim_leaves_nothing_behind(database: Database) {
        database.orders(3).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        database
            .run(database.either(
                "ALTER TABLE order_placed RENAME TO gone",
                "ALTER TABLE order_placed RENAME TO gone",
                "RENAME TABLE order_placed TO gone",
            ))
            .await;
        worker.claim(2, None).await.unwrap_err();
        assert_eq!(database.count("signalbus_claim").await, 0);
        database
            .run(database.either(
                "ALTER TABLE gone RENAME TO order_placed",
                "ALTER TABLE gone RENAME TO order_placed",
                "RENAME TABLE gone TO order_placed",
            ))
            .await;
        // (SQLite writes the name in another way now.)
        let again = Relay::open(&database, &orders()).await;
        assert_eq!(drain(&mut again.worker(), 2).await, ["1", "2", "3"]);
    }
}

/// MariaDB numbers no versions: a column of the application's can tell them.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_column_tells_what_was_changed() {
    use crate::harness::database::Database;
    use crate::harness::lane::{Relay, claim, drain, keys, orders, sent};
    use signalbus::outbox::{Deletions, Settled, Source};

    let database = Database::mariadb().await;
    let table = "CREATE TABLE order_placed (id INT, part CHAR(1), text VARCHAR(20), \
         changed_at TIMESTAMP(6) NOT NULL DEFAULT NOW(6) ON UPDATE NOW(6), PRIMARY KEY (id, part))";
    database.run(table).await;
    database.run("INSERT INTO order_placed (id, part, text) SELECT seq, 'a', 'x' FROM seq_1_to_9").await;
    let source = Source { version: Some("changed_at".into()), ..orders() };
    let relay = Relay::open(&database, &source).await;
    let mut worker = relay.worker();
    let batch = claim(&mut worker, 4).await;
    // One is changed, one is replaced by another with the same content, one is gone.
    database.run("UPDATE order_placed SET text = 'y' WHERE id = 1").await;
    database.run("DELETE FROM order_placed WHERE id IN (2, 3)").await;
    database.run("INSERT INTO order_placed (id, part, text) VALUES (2, 'a', 'x')").await;
    let ids: Vec<String> = batch.signals.iter().map(|signal| signal.id.clone()).collect();
    let settled = worker.settle(&batch, &sent(&batch)).await.unwrap();
    assert_eq!(settled, Settled::Done(Deletions { deleted: 1, changed: 2, ..Deletions::default() }));
    let mut seen = Vec::new();
    while seen.len() < 7 {
        let batch = claim(&mut worker, 4).await;
        assert!(batch.signals.iter().all(|signal| !ids.contains(&signal.id)), "{ids:?}");
        seen.extend(keys(&batch));
        worker.settle(&batch, &sent(&batch)).await.unwrap();
    }
    seen.sort_unstable();
    assert_eq!(seen, ["1,a", "2,a", "5,a", "6,a", "7,a", "8,a", "9,a"]);
    assert!(drain(&mut worker, 4).await.is_empty());
    for (column, wanted) in [("text", "varchar(20)"), ("id", "int(11)"), ("changed", "does not have")] {
        let refused = relay.outbox.signal_table(&Source { version: Some(column.into()), ..orders() }).await.err().unwrap();
        assert!(refused.to_string().contains(wanted), "{refused}");
    }
    database.run("ALTER TABLE order_placed MODIFY changed_at DATETIME NOT NULL").await;
    let refused = relay.outbox.signal_table(&source).await.err().unwrap().to_string();
    assert!(refused.contains("it must be DATETIME(6) NOT NULL"), "{refused}");
}

/// One connection serves all: a statement that is given up, or that fails, gives up its turn, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_does_not_succeed_keeps_nobody_waiting() {
    use std::time::Duration;

    use sqlx::Executor as _;

    use crate::harness::PATIENCE;
    use crate::harness::database::Database;
    use crate::harness::lane::{Relay, claim, orders};

    for fails in [false, true] {
        let database = Database::sqlite().await;
        database.orders(2).await;
        let relay = Relay::open(&database, &orders()).await;
        let (mut first, mut second) = (relay.worker(), relay.worker());
        let batch = claim(&mut first, 1).await;
        let mut other = database.sqlite_connection().await;
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        if fails {
            first.renew(&batch).await.unwrap_err();
        } else {
            tokio::time::timeout(Duration::from_millis(200), first.renew(&batch)).await.unwrap_err();
        }
        other.execute("ROLLBACK").await.unwrap();
        // (The claim of the first one may be over by now, and it is still there.)
        tokio::time::timeout(PATIENCE, claim(&mut second, 1)).await.expect("nobody has the connection");
        drop(first);
    }
}

crate::on_each_version!(
    a_settled_row_is_deleted,
    settling_twice_changes_nothing,
    claims_of_several_relays_never_overlap,
    concurrent_workers_send_every_row_once,
    nothing_is_due_while_every_row_is_claimed,
    two_signal_types_do_not_see_each_other,
    claims_do_not_lock_rows,
    the_boundary_leaves_higher_keys_alone,
    a_failed_claim_leaves_nothing_behind,
);
