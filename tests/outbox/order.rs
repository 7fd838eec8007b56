//! Signal types with `order_by`, with and without `order_key`.

mod cases {
    use std::time::Duration;

    use signalbus::outbox::{Batch, Claimed, Source};
    use signalbus::settlement::Settlement;

    use crate::harness::PATIENCE;
    use crate::harness::database::{Database, System};
    use crate::harness::lane::{
        Relay, attempts, burials, buried, claim, deferred, drain, keys, lose, nothing, ordered, sent, settle,
    };

    const HOUR: Duration = Duration::from_secs(3600);

    /// Creates `moves (id, at, account)`, where `at` runs against the keys.
    async fn moves(database: &Database, accounts: &[Option<&str>]) {
        let text = database.either("TEXT", "text", "VARCHAR(40)");
        database.run(&format!("CREATE TABLE moves (id INT PRIMARY KEY, at INT NOT NULL, account {text})")).await;
        for (n, account) in accounts.iter().enumerate() {
            let account = account.map_or("NULL".to_owned(), |account| format!("'{account}'"));
            database.run(&format!("INSERT INTO moves VALUES ({}, {}, {account})", 100 - n, n + 1)).await;
        }
    }

    pub async fn rows_are_claimed_in_order(database: Database) {
        moves(&database, &[None; 7]).await;
        let relay = Relay::open(&database, &ordered("moves", &["at"], &[])).await;
        assert_eq!(drain(&mut relay.worker(), 3).await, ["100", "99", "98", "97", "96", "95", "94"]);
    }

    pub async fn rows_are_claimed_in_descending_order(database: Database) {
        moves(&database, &[Some("a"), Some("b"), Some("a"), Some("b")]).await;
        database.run("INSERT INTO moves VALUES (1, 2, 'a')").await;
        let relay = Relay::open(&database, &ordered("moves", &["account desc", "at DESC"], &[])).await;
        assert_eq!(drain(&mut relay.worker(), 2).await, ["97", "99", "98", "1", "100"]);
        assert_eq!(relay.lane.signal_type().attributes, [("ordered".into(), "true".into())]);
    }

    /// Creates `moves (id, account)` with keys that do not come back.
    async fn numbered(database: &Database, rows: u32) {
        let key = database.either(
            "INTEGER PRIMARY KEY AUTOINCREMENT",
            "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            "BIGINT AUTO_INCREMENT PRIMARY KEY",
        );
        database.run(&format!("CREATE TABLE moves (id {key}, account VARCHAR(40))")).await;
        let series = database.series(rows);
        let account = database.either("'a' || (i % 2)", "'a' || (i % 2)::text", "CONCAT('a', i % 2)");
        database.run(&format!("INSERT INTO moves (account) SELECT {account} FROM {series} ORDER BY i")).await;
    }

    fn ids(batches: &[&Batch]) -> Vec<String> {
        batches.iter().flat_map(|batch| &batch.signals).map(|signal| signal.id.clone()).collect()
    }

    /// A claim of several batches: each is settled by itself, and what a dead relay leaves keeps its ids and its order.
    pub async fn a_claim_ahead_is_settled_batch_by_batch(database: Database) {
        for order_key in [&[][..], &["account"]] {
            numbered(&database, 12).await;
            let relay = Relay::open(&database, &ordered("moves", &["id"], order_key)).await;
            let mut worker = relay.worker();
            worker.cover(3);
            let mut batches = claim(&mut worker, 2).await.split(2, 1).remove(0);
            assert_eq!(batches.iter().map(|batch| batch.signals.len()).collect::<Vec<_>>(), [2, 2, 2]);
            let first = batches.pop_front().unwrap();
            assert_eq!(settle(&mut worker, &first, &sent(&first)).await, 2);
            // The claim stands: nobody has the next ones.
            assert!(nothing(&mut relay.worker()).await.is_none());
            let (left, left_ids) = (batches.iter().map(keys).collect::<Vec<_>>().concat(), ids(&[&batches[0], &batches[1]]));
            std::mem::forget(batches);
            database.expire().await;
            let other = Relay::open(&database, &ordered("moves", &["id"], order_key)).await;
            let mut worker = other.worker();
            let again = claim(&mut worker, 4).await;
            assert_eq!((keys(&again), ids(&[&again]), again.taken_over), (left, left_ids, true));
            assert_eq!(settle(&mut worker, &again, &sent(&again)).await, 4);
            assert_eq!(drain(&mut worker, 4).await.len(), 6);
            assert_eq!((database.count("moves").await, database.count("signalbus_claim").await), (0, 0));
            database.run("DROP TABLE moves").await;
        }
    }

    /// What is behind a failure is left to whoever claims next.
    pub async fn the_rest_of_a_claim_ahead_is_left(database: Database) {
        numbered(&database, 8).await;
        let relay = Relay::open(&database, &ordered("moves", &["id"], &[])).await;
        let mut worker = relay.worker();
        worker.cover(4);
        let batches = claim(&mut worker, 2).await.split(2, 1).remove(0);
        assert_eq!(settle(&mut worker, &batches[0], &sent(&batches[0])).await, 2);
        let failed = Settlement { delete: vec![0], defer: vec![deferred(&batches[1], 1, HOUR)], ..Settlement::default() };
        batches[1].leave(2);
        assert_eq!(settle(&mut worker, &batches[1], &failed).await, 1);
        assert!(nothing(&mut worker).await.is_some());
        database.make_due().await;
        let again = claim(&mut worker, 2).await;
        let expected: Vec<String> = keys(&batches[1])[1..].iter().cloned().chain(batches.iter().skip(2).flat_map(keys)).collect();
        assert_eq!((keys(&again), ids(&[&again])[0].clone()), (expected, ids(&[&batches[1]])[1].clone()));
        for batch in again.split(2, 1).remove(0) {
            assert_eq!(settle(&mut worker, &batch, &sent(&batch)).await, batch.signals.len() as u64);
        }
        assert_eq!((database.count("moves").await, database.count("signalbus_claim").await), (0, 0));
    }

    /// Where keys come back, a claim is one batch.
    pub async fn keys_that_come_back_are_not_claimed_ahead(database: Database) {
        moves(&database, &[None; 7]).await;
        let relay = Relay::open(&database, &ordered("moves", &["at"], &[])).await;
        let mut worker = relay.worker();
        worker.cover(3);
        // (PostgreSQL knows one version of a row from the next.)
        assert_eq!(claim(&mut worker, 2).await.signals.len(), database.choose(2, 6, 2));
    }

    /// However large a batch is, a claim of several has a bound; a single one is as large as it may be.
    pub async fn a_claim_ahead_has_a_bound(database: Database) {
        numbered(&database, 13_000).await;
        let relay = Relay::open(&database, &ordered("moves", &["id"], &[])).await;
        let mut worker = relay.worker();
        worker.cover(8);
        for (limit, rows) in [(4000, 8000), (12_000, 12_000)] {
            let batch = claim(&mut worker, limit).await;
            assert_eq!(batch.signals.len(), rows);
            worker.settle(&batch, &Settlement::default()).await.unwrap();
        }
    }

    /// Whatever is in an order key, it is that key and no other.
    pub async fn odd_order_keys_keep_others_out(database: Database) {
        let text = database.either("TEXT", "text", "VARCHAR(40) CHARACTER SET utf8mb4");
        database.run(&format!("CREATE TABLE moves (id INT PRIMARY KEY, account {text})")).await;
        let mut accounts: Vec<&str> = vec!["''", "'1'", "'a\"b'", "'[\"a\"]'", "'a,b'", "'\u{1F680}'", "'a'", "'A'", "'it''s'"];
        accounts.extend(database.either("'a' || char(0)", "'a' || chr(1)", "CONCAT('a', CHAR(0 USING utf8mb4))").split(';'));
        accounts.extend(database.either("'a' || char(92)", "'a' || chr(92)", "CONCAT('a', CHAR(92 USING utf8mb4))").split(';'));
        for (n, account) in accounts.iter().chain(&accounts).enumerate() {
            database.run(&format!("INSERT INTO moves VALUES ({n}, {account})")).await;
        }
        let relay = Relay::open(&database, &ordered("moves", &["id"], &["account"])).await;
        let (mut one, mut two) = (relay.worker(), relay.worker());
        let first = claim(&mut one, accounts.len()).await;
        assert_eq!(first.signals.len(), accounts.len());
        assert!(nothing(&mut two).await.is_none());
        settle(&mut one, &first, &sent(&first)).await;
        assert_eq!(claim(&mut two, 50).await.signals.len(), accounts.len());
    }

    /// Times as SQLite has them, which compares their texts; each batch starts from where the last one stood.
    pub async fn times_are_scanned_in_order(database: Database) {
        let (kind, from) = (database.either("TEXT", "timestamptz", "DATETIME(6)"), "2026-11-27");
        database.run(&format!("CREATE TABLE moves (id INT PRIMARY KEY, at {kind})")).await;
        let time = |n: u32| match database.system {
            System::Sqlite => format!("'{from}T09:{:02}:00.{}Z'", n / 2, n % 2 * 5),
            _ => format!("'{from} 09:{:02}:00.{}'", n / 2, n % 2 * 5),
        };
        for (order, descending) in [("at", false), ("at desc", true)] {
            for n in 1..=12 {
                database.run(&format!("INSERT INTO moves VALUES ({n}, {})", time(n))).await;
            }
            let relay = Relay::open(&database, &ordered("moves", &[order], &[])).await;
            let mut expected: Vec<String> = (1..=12).map(|n| n.to_string()).collect();
            if descending {
                expected.reverse();
            }
            let mut worker = relay.worker();
            let mut seen = Vec::new();
            for _ in 0..6 {
                let batch = claim(&mut worker, 2).await;
                settle(&mut worker, &batch, &sent(&batch)).await;
                seen.extend(keys(&batch));
            }
            assert_eq!(seen, expected, "{order}");
        }
    }

    /// What follows a dead letter waits until somebody acts on it.
    pub async fn a_dead_letter_may_hold_back_what_follows(database: Database) {
        moves(&database, &[Some("a"), Some("b"), Some("a"), Some("b"), Some("a")]).await;
        for (order_key, left) in [(&["account"][..], &["99", "97"][..]), (&[], &[])] {
            let source = Source { holds_dead: true, ..ordered("moves", &["at"], order_key) };
            let relay = Relay::open(&database, &source).await;
            let mut worker = relay.worker();
            let batch = claim(&mut worker, 1).await;
            let dead = keys(&batch);
            settle(&mut worker, &batch, &burials(&batch)).await;
            assert_eq!(drain(&mut worker, 9).await, left, "after {dead:?}");
            assert_eq!(relay.outbox.look(&[(&relay.lane, true)]).await.unwrap(), [Some(false)]);
            let letters = relay.outbox.dead_letters(&[], 9).await.unwrap();
            if order_key.is_empty() {
                assert_eq!(relay.outbox.redrive(&[letters[0].id]).await.unwrap(), 1);
                assert_eq!(drain(&mut worker, 9).await, ["98", "96"]);
            } else {
                assert_eq!(relay.lane.discard(&letters).await.unwrap(), 1);
            }
        }
        assert_eq!((database.count("moves").await, database.count("signalbus_hold").await), (0, 0));
    }

    pub async fn only_one_claim_is_live_at_a_time(database: Database) {
        moves(&database, &[None; 6]).await;
        let relay = Relay::open(&database, &ordered("moves", &["at"], &[])).await;
        let (mut one, mut two) = (relay.worker(), relay.worker());
        let batch = claim(&mut one, 2).await;
        nothing(&mut two).await;
        settle(&mut one, &batch, &sent(&batch)).await;
        let batch = claim(&mut two, 2).await;
        assert_eq!(keys(&batch), ["98", "97"]);
        nothing(&mut one).await;
        database.expire().await;
        assert_eq!(lose(&mut one, 2).await, ["98", "97"]);
        nothing(&mut two).await;
    }

    pub async fn a_deferral_holds_back_everything(database: Database) {
        moves(&database, &[None; 4]).await;
        let relay = Relay::open(&database, &ordered("moves", &["at"], &[])).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 4).await;
        let defer = vec![deferred(&batch, 1, HOUR)];
        settle(&mut worker, &batch, &Settlement { delete: vec![0], defer, ..Settlement::default() }).await;
        assert!(nothing(&mut worker).await.is_some());
        database.make_due().await;
        let batch = claim(&mut worker, 4).await;
        assert_eq!((keys(&batch), attempts(&batch)), (vec!["99".into(), "98".into(), "97".into()], vec![2, 1, 1]));
        let settlement = Settlement { bury: vec![buried(&batch, 0)], delete: vec![1], ..Settlement::default() };
        settle(&mut worker, &batch, &settlement).await;
        assert_eq!(drain(&mut worker, 4).await, ["97"]);
    }

    /// The application deletes the row that holds back all others.
    pub async fn the_deferral_of_a_deleted_row_holds_back_nothing_once_due(database: Database) {
        moves(&database, &[None; 3]).await;
        let relay = Relay::open(&database, &ordered("moves", &["at"], &[])).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 3).await;
        let defer = vec![deferred(&batch, 0, HOUR)];
        settle(&mut worker, &batch, &Settlement { defer, ..Settlement::default() }).await;
        database.run("DELETE FROM moves WHERE id = 100").await;
        database.make_due().await;
        assert_eq!(drain(&mut worker, 3).await, ["99", "98"]);
        assert_eq!(nothing(&mut worker).await, None);
        assert_eq!(database.count("signalbus_hold WHERE state = 'retry'").await, 0);
    }

    /// The application gives a row that is deferred another order key: it is another version, and goes at once.
    pub async fn a_deferred_row_whose_order_key_changes_is_sent(database: Database) {
        moves(&database, &[Some("a"), Some("a"), Some("b")]).await;
        let relay = Relay::open(&database, &ordered("moves", &["at"], &["account"])).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 1).await;
        let defer = vec![deferred(&batch, 0, HOUR)];
        settle(&mut worker, &batch, &Settlement { defer, ..Settlement::default() }).await;
        database.run("UPDATE moves SET account = 'c' WHERE id = 100").await;
        let batch = claim(&mut worker, 3).await;
        assert_eq!((keys(&batch), attempts(&batch)), (vec!["100".into(), "98".into()], vec![1, 1]));
        settle(&mut worker, &batch, &sent(&batch)).await;
        nothing(&mut worker).await;
        database.make_due().await;
        assert_eq!(drain(&mut worker, 3).await, ["99"]);
        assert_eq!(nothing(&mut worker).await, None);
        assert_eq!(database.count("signalbus_hold").await, 0);
    }

    pub async fn a_deferral_holds_back_only_its_own_key(database: Database) {
        moves(&database, &[Some("a"), Some("b"), Some("a"), Some("b"), None, Some("c")]).await;
        let relay = Relay::open(&database, &ordered("moves", &["at"], &["account"])).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 2).await;
        let order_keys: Vec<&str> = batch.signals.iter().map(|signal| signal.order_key.as_str()).collect();
        assert_eq!(order_keys, ["a", "b"]);
        let defer = vec![deferred(&batch, 0, HOUR)];
        settle(&mut worker, &batch, &Settlement { delete: vec![1], defer, ..Settlement::default() }).await;
        assert_eq!(drain(&mut worker, 2).await, ["97", "96", "95"]);
        database.make_due().await;
        assert_eq!(drain(&mut worker, 1).await, ["100", "98"]);
        let attributes = &relay.lane.signal_type().attributes;
        assert_eq!(attributes[..], [("ordered".into(), "true".into()), ("order_key".into(), "account".into())]);
    }

    pub async fn parallel_claims_never_share_a_key(database: Database) {
        moves(&database, &[Some("a"), Some("b"), Some("a"), Some("c"), Some("b"), Some("d")]).await;
        let relay = Relay::open(&database, &ordered("moves", &["at"], &["account"])).await;
        let (mut one, mut two, mut three) = (relay.worker(), relay.worker(), relay.worker());
        let first = claim(&mut one, 2).await;
        assert_eq!(keys(&first), ["100", "99"]);
        let second = claim(&mut two, 1).await;
        assert_eq!(keys(&second), ["97"]);
        let third = claim(&mut three, 5).await;
        assert_eq!(keys(&third), ["95"]);
        settle(&mut one, &first, &sent(&first)).await;
        assert_eq!(lose(&mut one, 5).await, ["98", "96"]);
    }

    pub async fn rows_with_a_null_order_key_keep_their_order(database: Database) {
        moves(&database, &[None, Some("a"), None, Some("a")]).await;
        let relay = Relay::open(&database, &ordered("moves", &["at"], &["account"])).await;
        let (mut one, mut two) = (relay.worker(), relay.worker());
        let first = claim(&mut one, 1).await;
        assert_eq!(keys(&first), ["100"]);
        assert_eq!(lose(&mut two, 5).await, ["99", "97"]);
        settle(&mut one, &first, &sent(&first)).await;
        assert_eq!(lose(&mut one, 5).await, ["98"]);
    }

    pub async fn a_takeover_keeps_the_order_of_each_key(database: Database) {
        moves(&database, &[Some("a"), Some("b"), Some("a"), Some("b"), Some("c")]).await;
        let relay = Relay::open(&database, &ordered("moves", &["at"], &["account"])).await;
        let (mut one, mut two) = (relay.worker(), relay.worker());
        lose(&mut one, 2).await;
        lose(&mut two, 1).await;
        database.expire().await;
        let mut again = [lose(&mut one, 9).await, lose(&mut two, 9).await];
        again.sort();
        assert_eq!(again, [vec!["100".to_owned(), "99".into(), "98".into(), "97".into()], vec!["96".into()]]);
        database.expire().await;
        let mut seen = Vec::new();
        while seen.len() < 5 {
            let batch = claim(&mut one, 9).await;
            settle(&mut one, &batch, &sent(&batch)).await;
            seen.extend(keys(&batch));
        }
        let place = |key: &str| seen.iter().position(|seen| seen == key).unwrap();
        assert!(place("100") < place("98") && place("99") < place("97"), "{seen:?}");
        nothing(&mut two).await;
        assert_eq!(database.count("signalbus_claim").await, 0);
    }

    /// Keys that a database may consider equal are different keys.
    pub async fn similar_order_keys_are_distinguished(database: Database) {
        moves(&database, &[Some("a"), Some("A"), Some("a "), Some("ä")]).await;
        let relay = Relay::open(&database, &ordered("moves", &["at"], &["account"])).await;
        let (mut one, mut two, mut heir) = (relay.worker(), relay.worker(), relay.worker());
        assert_eq!(lose(&mut one, 1).await, ["100"]);
        assert_eq!(lose(&mut two, 9).await, ["99", "98", "97"]);
        database.run("UPDATE signalbus_claim SET expires_at = 0 WHERE order_keys = '[\"a\"]'").await;
        assert_eq!(lose(&mut heir, 9).await, ["100"], "the others are still claimed");
    }

    pub async fn composite_order_keys_are_distinguished(database: Database) {
        let text = database.either("TEXT", "text", "VARCHAR(40)");
        database.run(&format!("CREATE TABLE moves (id INT PRIMARY KEY, one {text}, two {text})")).await;
        database.run("INSERT INTO moves VALUES (1, 'a,b', 'c'), (2, 'a', 'b,c'), (3, 'a,b', 'c'), (4, 'a:%', NULL)").await;
        let relay = Relay::open(&database, &ordered("moves", &["id"], &["one", "two"])).await;
        let (mut one, mut two) = (relay.worker(), relay.worker());
        let batch = claim(&mut one, 1).await;
        assert_eq!(batch.signals[0].order_key, "a%2Cb,c");
        let batch = claim(&mut two, 9).await;
        assert_eq!(keys(&batch), ["2", "4"]);
        assert_eq!(batch.signals[1].order_key, "a%3A%25,");
    }

    /// While two order keys are claimed, nobody looks for others again and again; but what was let go, or is new, is found.
    pub async fn what_no_claim_holds_back_is_found(database: Database) {
        for (order, both, next, at) in [("at", ["100", "99"], ["98", "97"], 9), ("at desc", ["97", "98"], ["99", "100"], 0)] {
            moves(&database, &[Some("a"), Some("b"), Some("a"), Some("b")]).await;
            let relay = Relay::open(&database, &ordered("moves", &[order], &["account"])).await;
            let (mut one, mut two, mut three) = (relay.worker(), relay.worker(), relay.worker());
            let batch = claim(&mut one, 2).await;
            assert_eq!(keys(&batch), both);
            for _ in 0..3 {
                assert!(nothing(&mut two).await.is_none());
            }
            settle(&mut one, &batch, &sent(&batch)).await;
            let batches = [claim(&mut two, 1).await, claim(&mut one, 1).await];
            assert_eq!(batches.each_ref().map(|batch| keys(batch).concat()), next);
            assert!(nothing(&mut three).await.is_none());
            database.run(&format!("INSERT INTO moves VALUES (1, {at}, 'c')")).await;
            let begun = std::time::Instant::now();
            let found = loop {
                if let Claimed::Batch(found) = three.claim(9, None).await.unwrap() {
                    break found;
                }
                assert!(begun.elapsed() < PATIENCE);
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert_eq!(keys(&found), ["1"]);
            for batch in batches.iter().chain([&found]) {
                settle(&mut one, batch, &sent(batch)).await;
            }
            database.run("DROP TABLE moves").await;
        }
    }
}

crate::on_each_database!(
    what_no_claim_holds_back_is_found,
    a_claim_ahead_is_settled_batch_by_batch,
    the_rest_of_a_claim_ahead_is_left,
    keys_that_come_back_are_not_claimed_ahead,
    odd_order_keys_keep_others_out,
    a_claim_ahead_has_a_bound,
    rows_are_claimed_in_order,
    rows_are_claimed_in_descending_order,
    times_are_scanned_in_order,
    a_dead_letter_may_hold_back_what_follows,
    only_one_claim_is_live_at_a_time,
    a_deferral_holds_back_everything,
    the_deferral_of_a_deleted_row_holds_back_nothing_once_due,
    a_deferral_holds_back_only_its_own_key,
    a_deferred_row_whose_order_key_changes_is_sent,
    parallel_claims_never_share_a_key,
    rows_with_a_null_order_key_keep_their_order,
    a_takeover_keeps_the_order_of_each_key,
    similar_order_keys_are_distinguished,
    composite_order_keys_are_distinguished,
);

/// A backlog is not read from end to end for each of its batches, where a batch has all order keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_few_order_keys_is_read_a_few_times() {
    use crate::harness::database::Database;
    use crate::harness::relay::{Running, section};

    const ROWS: u32 = 20_000;
    let database = Database::postgres().await;
    database.orders(ROWS).await;
    database.run("UPDATE order_placed SET customer = 'c' || id % 10").await;
    database.run("VACUUM ANALYZE order_placed").await;
    database.run("SELECT pg_stat_reset()").await;
    let more = "burst_count = 200\nconcurrency = 4\norder_by = ['id']\norder_key = ['customer']";
    let mut relay = Running::start(&database, &section("OrderPlaced", &crate::harness::guest("noop"), more));
    relay.wait_empty(&database, "order_placed").await;
    assert_eq!(relay.stop(), Some(0));
    let read = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE relname = 'order_placed'";
    let read = database.number(read).await / i64::from(ROWS);
    assert!(read < 20, "each row was read {read} times");
}
