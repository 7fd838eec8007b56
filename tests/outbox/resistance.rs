//! Rows that the database does not let go: each costs itself only, and is sent once.

mod cases {
    use std::time::{Duration, Instant};

    use signalbus::outbox::{Deletions, Settled};
    use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

    use crate::harness::PATIENCE;
    use crate::harness::database::{Database, System};
    use crate::harness::guest;
    use crate::harness::lane::{Relay, attempts, claim, drain, keys, nothing, orders, sent};
    use crate::harness::relay::{Running, section};

    /// Claims and settles up to 100 rows, of which everything was sent.
    async fn send(relay: &Relay) -> Deletions {
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 100).await;
        match worker.settle(&batch, &sent(&batch)).await.unwrap() {
            Settled::Done(deletions) => deletions,
            Settled::Fenced => panic!("the claim was lost"),
        }
    }

    /// A table whose foreign key keeps these orders.
    async fn lines(database: &Database, orders: &str) {
        let integer = database.either("INTEGER", "bigint", "BIGINT");
        database
            .run(&format!(
                "CREATE TABLE line (order_id {integer}, FOREIGN KEY (order_id) REFERENCES order_placed (id)); \
                 INSERT INTO line {orders}"
            ))
            .await;
    }

    async fn try_again(database: &Database, relay: &Relay) {
        database.run("UPDATE signalbus_hold SET due_at = 0 WHERE state = 'sent'").await;
        nothing(&mut relay.worker()).await;
    }

    /// Sends 100 rows, of which these cannot be deleted, makes it possible, and expects them to go without being sent
    /// again.
    async fn keeps(database: &Database, kept: &[&str], reason: &str, cure: &str) {
        let relay = Relay::open(database, &orders()).await;
        let done = send(&relay).await;
        let left = kept.len();
        assert_eq!((done.deleted, done.refused, done.changed, done.locked), (100 - left as u64, left, 0, 0), "{done:?}");
        assert!(done.reason.as_deref().is_some_and(|told| told.contains(reason)), "{done:?}");
        assert_eq!(database.lines("SELECT id FROM order_placed ORDER BY id").await, kept);
        nothing(&mut relay.worker()).await;
        assert_eq!(relay.outbox.pending(&orders()).await.unwrap(), 0);
        let undeleted = relay.outbox.undeleted().await.unwrap();
        assert_eq!((undeleted[0].count, undeleted[0].signal.as_str()), (left as u64, "OrderPlaced"));
        assert!(undeleted[0].reason.contains(reason), "{undeleted:?}");
        try_again(database, &relay).await;
        assert_eq!(database.lines("SELECT id FROM order_placed ORDER BY id").await, kept);
        assert_eq!(database.number("SELECT count(*) FROM signalbus_hold WHERE attempts <> 2").await, 0);
        database.run(cure).await;
        // (Its table may have been altered.)
        try_again(database, &Relay::open(database, &orders()).await).await;
        assert_eq!((database.count("order_placed").await, database.count("signalbus_hold").await), (0, 0));
    }

    pub async fn a_foreign_key_keeps_its_row_only(database: Database) {
        database.orders(100).await;
        lines(&database, "VALUES (7), (50), (51)").await;
        keeps(&database, &["7", "50", "51"], database.either("FOREIGN KEY", "foreign key", "foreign key"), "DELETE FROM line")
            .await;
    }

    pub async fn a_trigger_that_raises_keeps_its_row_only(database: Database) {
        database.orders(100).await;
        let trigger = database.either(
            "CREATE TRIGGER keep BEFORE DELETE ON order_placed WHEN old.id % 40 = 1 BEGIN SELECT RAISE(ABORT, 'not this one'); END",
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF old.id % 40 = 1 THEN RAISE 'not this one'; \
             END IF; RETURN old; END$$; CREATE TRIGGER keep BEFORE DELETE ON order_placed FOR EACH ROW EXECUTE FUNCTION keep()",
            "CREATE TRIGGER keep BEFORE DELETE ON order_placed FOR EACH ROW IF old.id % 40 = 1 THEN \
             SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END IF",
        );
        database.run(trigger).await;
        let drop = database.either("DROP TRIGGER keep", "DROP TRIGGER keep ON order_placed", "DROP TRIGGER keep");
        keeps(&database, &["1", "41", "81"], "not this one", drop).await;
    }

    /// A deferred constraint speaks at the commit.
    pub async fn a_deferred_foreign_key_keeps_its_row_only(database: Database) {
        database.orders(100).await;
        database
            .run(
                "CREATE TABLE line (order_id bigint REFERENCES order_placed (id) DEFERRABLE INITIALLY DEFERRED); \
                 INSERT INTO line VALUES (7), (50)",
            )
            .await;
        keeps(&database, &["7", "50"], database.either("FOREIGN KEY", "foreign key", ""), "DELETE FROM line").await;
    }

    /// A trigger that says nothing.
    pub async fn a_deletion_without_effect_is_not_repeated(database: Database) {
        database.orders(100).await;
        let trigger = database.either(
            "CREATE TRIGGER keep BEFORE DELETE ON order_placed WHEN old.id % 40 = 1 BEGIN SELECT RAISE(IGNORE); END",
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF old.id % 40 = 1 THEN RETURN NULL; \
             END IF; RETURN old; END$$; CREATE TRIGGER keep BEFORE DELETE ON order_placed FOR EACH ROW EXECUTE FUNCTION keep()",
            "",
        );
        database.run(trigger).await;
        let drop = database.either("DROP TRIGGER keep", "DROP TRIGGER keep ON order_placed", "");
        keeps(&database, &["1", "41", "81"], "left it where it is", drop).await;
    }

    /// A trigger that marks rows instead of deleting them.
    pub async fn a_marked_row_is_sent_once(database: Database) {
        database.orders(100).await;
        let trigger = database.either(
            "CREATE TRIGGER mark BEFORE DELETE ON order_placed WHEN old.id > 98 BEGIN \
             UPDATE order_placed SET payload = 'gone' WHERE id = old.id; SELECT RAISE(IGNORE); END",
            "CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF old.id > 98 THEN \
             UPDATE order_placed SET payload = 'gone' WHERE id = old.id; RETURN NULL; END IF; RETURN old; END$$; \
             CREATE TRIGGER mark BEFORE DELETE ON order_placed FOR EACH ROW EXECUTE FUNCTION mark()",
            "",
        );
        database.run(trigger).await;
        let drop = database.either("DROP TRIGGER mark", "DROP TRIGGER mark ON order_placed", "");
        keeps(&database, &["99", "100"], "left it where it is", drop).await;
    }

    /// What is written within a block with EXCEPTION has the number of a transaction of its own.
    pub async fn a_row_that_is_marked_within_a_block_is_sent_once(database: Database) {
        database.orders(100).await;
        let trigger = "CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF old.id > 98 THEN BEGIN \
             UPDATE order_placed SET payload = 'gone' WHERE id = old.id; EXCEPTION WHEN others THEN NULL; END; RETURN NULL; \
             END IF; RETURN old; END$$; \
             CREATE TRIGGER mark BEFORE DELETE ON order_placed FOR EACH ROW EXECUTE FUNCTION mark()";
        database.run(trigger).await;
        keeps(&database, &["99", "100"], "left it where it is", "DROP TRIGGER mark ON order_placed").await;
    }

    pub async fn rules_and_policies_keep_their_rows_only(database: Database) {
        database.orders(100).await;
        database.run("CREATE RULE keep AS ON DELETE TO order_placed WHERE old.id = 9 DO INSTEAD NOTHING").await;
        keeps(&database, &["9"], "left it where it is", "DROP RULE keep ON order_placed").await;
        let role = format!("sender_{}", database.url.rsplit_once('_').unwrap().1);
        database
            .run(&format!(
                "INSERT INTO order_placed SELECT i, 'c', 'p' FROM generate_series(1, 100) i; \
                 CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON order_placed TO {role}; \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}; REVOKE UPDATE ON order_placed FROM {role}; \
                 ALTER TABLE order_placed ENABLE ROW LEVEL SECURITY; CREATE POLICY seen ON order_placed FOR SELECT USING (true); \
                 CREATE POLICY deleted ON order_placed FOR DELETE USING (id <> 5)"
            ))
            .await;
        let limited = Relay {
            outbox: signalbus::outbox::Outbox::open(&database.url.replace("signalbus@", &format!("{role}@")), 4).unwrap(),
            ..Relay::open(&database, &orders()).await
        };
        let limited = Relay { lane: limited.outbox.signal_table(&orders()).await.unwrap(), ..limited };
        // It notes that no rule is left, and changes nothing.
        database.run("VACUUM order_placed").await;
        assert_eq!(send(&limited).await.refused, 1);
        database.run("DROP POLICY deleted ON order_placed; CREATE POLICY deleted ON order_placed FOR DELETE USING (true)").await;
        try_again(&database, &limited).await;
        assert_eq!((database.count("order_placed").await, database.count("signalbus_hold").await), (0, 0));
    }

    /// What was sent and is still there belongs to its application.
    pub async fn a_kept_row_that_changes_is_sent_as_it_is_now(database: Database) {
        database.orders(3).await;
        lines(&database, "VALUES (1), (2), (3)").await;
        let relay = Relay::open(&database, &orders()).await;
        assert_eq!(send(&relay).await.refused, 3);
        database.run("UPDATE order_placed SET payload = 'new' WHERE id = 2; DELETE FROM line WHERE order_id = 3; DELETE FROM order_placed WHERE id = 3").await;
        database.run("UPDATE signalbus_hold SET due_at = 0").await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 100).await;
        assert_eq!((keys(&batch), attempts(&batch)), (vec!["2".into()], vec![1]));
        assert_eq!(database.lines("SELECT signal_key FROM signalbus_hold").await, ["1"]);
    }

    /// Its key and its content come back, and it is another row: nothing of it was sent.
    pub async fn an_equal_row_after_a_kept_one_is_sent(database: Database) {
        database.orders(1).await;
        lines(&database, "VALUES (1)").await;
        let relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), ""));
        relay.wait("it is not held", || relay.project.ok(&["pending"]).contains("were sent and could"));
        database.run("UPDATE signalbus_hold SET due_at = due_at + 500000; CREATE TABLE old AS SELECT * FROM order_placed").await;
        database.run("DELETE FROM line; DELETE FROM order_placed").await;
        let begun = Instant::now();
        while database.count("signalbus_hold").await > 0 {
            assert!(begun.elapsed() < PATIENCE, "what is gone is still held");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        database.run("INSERT INTO order_placed SELECT * FROM old").await;
        relay.wait_empty(&database, "order_placed").await;
        let ids: std::collections::HashSet<String> = relay.witness.ids().into_iter().collect();
        assert_eq!(ids.len(), 2, "{}", relay.witness.text());
        // And one that is changed while it is held is sent within seconds.
        database.run("INSERT INTO order_placed SELECT * FROM old; INSERT INTO line VALUES (1)").await;
        relay.wait("it is not held", || relay.project.ok(&["pending"]).contains("were sent and could"));
        database.run("UPDATE signalbus_hold SET due_at = due_at + 500000").await;
        let sent = relay.witness.ids().len();
        database.run("UPDATE order_placed SET payload = 'changed'").await;
        relay.wait("the change is not sent", || relay.witness.ids().len() > sent);
    }

    /// The application has locked three rows: to change one, to delete one, and for nothing.
    pub async fn locked_rows_keep_nobody_waiting(database: Database) {
        database.orders(100).await;
        let relay = Relay::open(&database, &orders()).await;
        let lock = "SELECT id FROM order_placed WHERE id IN (3, 8, 70) FOR UPDATE";
        let changes = ["UPDATE order_placed SET payload = 'new' WHERE id = 3", "DELETE FROM order_placed WHERE id = 8"];
        macro_rules! locked {
            ($connection:expr) => {{
                let mut connection = $connection;
                let mut transaction = connection.begin().await.unwrap();
                for text in std::iter::once(lock).chain(changes) {
                    transaction.execute(AssertSqlSafe(text)).await.unwrap();
                }
                let begun = Instant::now();
                let done = send(&relay).await;
                assert_eq!((done.deleted, done.locked, done.refused, done.changed), (97, 3, 0, 0), "{done:?}");
                assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
                try_again(&database, &relay).await;
                assert_eq!(database.lines("SELECT id FROM order_placed ORDER BY id").await, ["3", "8", "70"]);
                transaction.commit().await.unwrap();
            }};
        }
        match database.system {
            System::Mariadb => locked!(database.mariadb_connection().await),
            _ => locked!(database.postgres_connection().await),
        }
        database.run("UPDATE signalbus_hold SET due_at = 0").await;
        let mut worker = relay.worker();
        assert_eq!(drain(&mut worker, 100).await, ["3"], "it is sent as it is now");
        assert_eq!((database.count("order_placed").await, database.count("signalbus_hold").await), (0, 0));
    }

    /// A row that goes with another one is locked: that cannot be seen from the row itself.
    pub async fn a_locked_child_keeps_its_parent_only(database: Database) {
        database.orders(100).await;
        database
            .run(
                "CREATE TABLE line (id BIGINT PRIMARY KEY, order_id BIGINT, FOREIGN KEY (order_id) REFERENCES order_placed (id) \
                 ON DELETE CASCADE)",
            )
            .await;
        database.run(&format!("INSERT INTO line SELECT i, i FROM {}", database.series(100))).await;
        let relay = Relay::open(&database, &orders()).await;
        macro_rules! locked {
            ($connection:expr) => {{
                let mut connection = $connection;
                let mut transaction = connection.begin().await.unwrap();
                transaction.execute("SELECT id FROM line WHERE id = 33 FOR UPDATE").await.unwrap();
                let begun = Instant::now();
                let done = send(&relay).await;
                assert!((1..=50).contains(&done.locked) && done.deleted + done.locked as u64 == 100, "{done:?}");
                assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
                transaction.rollback().await.unwrap();
            }};
        }
        match database.system {
            System::Mariadb => locked!(database.mariadb_connection().await),
            _ => locked!(database.postgres_connection().await),
        }
        try_again(&database, &relay).await;
        assert_eq!((database.count("order_placed").await, database.count("line").await), (0, 0));
    }

    /// The right to update a row is needed to lock it, and a relay need not have it.
    pub async fn without_the_right_to_lock_rows_all_is_the_same(database: Database) {
        database.orders(100).await;
        let role = format!("sender_{}", database.url.rsplit_once('_').unwrap().1);
        database
            .run(&format!(
                "CREATE ROLE {role} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}; \
                 REVOKE UPDATE ON order_placed FROM {role}"
            ))
            .await;
        let outbox = signalbus::outbox::Outbox::open(&database.url.replace("signalbus@", &format!("{role}@")), 4).unwrap();
        let lane = outbox.signal_table(&orders()).await.unwrap();
        let relay = Relay { outbox, lane };
        let mut connection = database.postgres_connection().await;
        let mut transaction = connection.begin().await.unwrap();
        transaction.execute("SELECT id FROM order_placed WHERE id IN (3, 8) FOR UPDATE").await.unwrap();
        let done = send(&relay).await;
        assert!((2..50).contains(&done.locked) && done.deleted + done.locked as u64 == 100, "{done:?}");
        transaction.commit().await.unwrap();
        try_again(&database, &relay).await;
        assert_eq!((database.count("order_placed").await, database.count("signalbus_hold").await), (0, 0));
        database.run(&format!("REVOKE DELETE ON order_placed FROM {role}")).await;
        let error = relay.outbox.signal_table(&orders()).await.err().unwrap().to_string();
        assert!(error.contains("permission denied") && error.contains("grant DELETE on it"), "{error}");
    }

    /// A running relay shows what it cannot delete, sends everything else, and goes on by itself.
    pub async fn a_relay_shows_what_it_cannot_delete(database: Database) {
        database.orders(2000).await;
        lines(&database, &format!("SELECT i * 20 FROM {}", database.series(100))).await;
        let relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), "order_by = ['id']"));
        let mut left = i64::MAX;
        while left > 100 {
            left = database.count("order_placed").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(relay.witness.all_sent(2000), 0, "each was sent once");
        relay.wait_ready();
        let pending = relay.project.ok(&["pending"]);
        assert!(
            pending.contains("Total pending: 0\n    100 of type \"OrderPlaced\" were sent and could not be deleted: "),
            "{pending}"
        );
        let checked = relay.project.ok(&["check"]);
        assert!(checked.contains("100 rows were sent and could not be deleted") && checked.contains("\"line\""), "{checked}");
        relay.wait("the status does not tell", || relay.status_of("OrderPlaced")["undeleted"] == 100);
        assert!((relay.metric("signalbus_undeleted{signal=\"OrderPlaced\"}") - 100.0).abs() < 0.1);
        database.run("DELETE FROM line").await;
        // On a slow machine, it has tried so often that it tries again only after minutes.
        database.run("UPDATE signalbus_hold SET due_at = 0").await;
        relay.wait_empty(&database, "order_placed").await;
        assert_eq!(relay.witness.all_sent(2000), 0, "each was sent once");
    }
}

crate::on_each_version!(
    a_foreign_key_keeps_its_row_only,
    a_trigger_that_raises_keeps_its_row_only,
    a_kept_row_that_changes_is_sent_as_it_is_now,
    an_equal_row_after_a_kept_one_is_sent,
    a_relay_shows_what_it_cannot_delete,
);

crate::on_databases!([sqlite postgres] a_deferred_foreign_key_keeps_its_row_only, a_deletion_without_effect_is_not_repeated, a_marked_row_is_sent_once);

crate::on_databases!([postgres postgres17 postgres18 mariadb] locked_rows_keep_nobody_waiting, a_locked_child_keeps_its_parent_only);

crate::on_databases!([postgres postgres18] a_row_that_is_marked_within_a_block_is_sent_once);

crate::on_databases!([postgres] rules_and_policies_keep_their_rows_only, without_the_right_to_lock_rows_all_is_the_same);

/// Whenever a row changes that was sent and could not be deleted, it is sent as it is now.
#[tokio::test(flavor = "multi_thread")]
async fn a_sent_row_that_changes_before_its_deletion_is_sent_again() {
    use crate::harness::database::Database;
    use crate::harness::lane::{Relay, claim, drain, orders, sent, settle};
    use signalbus::outbox::trial::Trial;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    let mut changes = 0;
    for wanted in 1..=6 {
        let database = Arc::new(Database::sqlite().await);
        database.orders(2).await;
        database.run("CREATE TABLE line (order_id INTEGER, FOREIGN KEY (order_id) REFERENCES order_placed (id))").await;
        database.run("INSERT INTO line VALUES (1)").await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 9).await;
        settle(&mut worker, &batch, &sent(&batch)).await;
        database.run("DELETE FROM line; UPDATE signalbus_hold SET due_at = 0").await;
        // So many transactions have begun; so many rows were changed before the wanted one.
        let (begun, changed) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let (counted, found, other) = (begun.clone(), changed.clone(), database.clone());
        let interruption = move || -> futures::future::BoxFuture<'static, ()> {
            let due = counted.fetch_add(1, Ordering::Relaxed) + 1 == wanted;
            let (found, database) = (found.clone(), other.clone());
            Box::pin(async move {
                if due {
                    database.run("UPDATE order_placed SET customer = 'changed'").await;
                    found.store(database.count("order_placed").await, Ordering::Relaxed);
                }
            })
        };
        let trial = Trial { broken: None, interruption: Some(Arc::new(interruption)) };
        let mut again = trial.run(drain(&mut worker, 9)).await;
        again.extend(drain(&mut worker, 9).await);
        let changed = changed.load(Ordering::Relaxed);
        assert_eq!(i64::try_from(again.len()).unwrap(), changed, "changed before transaction {wanted}: {again:?}");
        changes += changed;
    }
    assert!(changes > 1, "{changes}");
}

/// MariaDB reads a range as far as the row behind it, which is often one that somebody is just about to commit.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_the_row_behind_a_batch() {
    use crate::harness::database::{Database, System};
    use crate::harness::lane::{Relay, drain, orders};
    use crate::harness::server::{Kind, Server};
    use sqlx::{Connection as _, Executor as _};
    // Of its own: it counts the waits of all.
    let server = tokio::task::spawn_blocking(|| Server::start(Kind::Mariadb)).await.unwrap();
    let database = Database::on(System::Mariadb, &server).await;
    database.orders(100).await;
    let mut connection = database.mariadb_connection().await;
    let mut transaction = connection.begin().await.unwrap();
    transaction.execute("INSERT INTO order_placed (id) VALUES (101)").await.unwrap();
    let waits = "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'Innodb_row_lock_waits'";
    let before = database.lines(waits).await;
    let relay = Relay::open(&database, &orders()).await;
    let mut worker = relay.worker();
    assert_eq!(drain(&mut worker, 20).await.len(), 100);
    assert_eq!(database.lines(waits).await, before);
    transaction.commit().await.unwrap();
    assert_eq!(drain(&mut worker, 20).await, ["101"]);
    assert_eq!(database.count("signalbus_hold").await, 0);
}
