//! Ids are the same for every repetition of one version of a row, and never the same for two; only the version that
//! was sent is deleted.

mod cases {
    use std::collections::HashSet;
    use std::time::Duration;

    use signalbus::outbox::{Batch, Outbox, Settled, Source, Worker};
    use signalbus::settlement::Settlement;

    use crate::harness::database::Database;
    use crate::harness::lane::{Relay, attempts, buried, claim, deferred, drain, keys, nothing, ordered, orders, sent, settle};

    fn ids(batch: &Batch) -> Vec<String> {
        batch.signals.iter().map(|signal| signal.id.clone()).collect()
    }

    /// Settles everything as sent; returns how many rows were deleted, and how many had changed.
    async fn settle_all(worker: &mut Worker<'_>, batch: &Batch) -> (u64, usize) {
        match worker.settle(batch, &sent(batch)).await.unwrap() {
            Settled::Done(done) => (done.deleted, done.changed),
            Settled::Fenced => panic!("the claim was lost"),
        }
    }

    pub async fn every_repetition_has_the_same_id(database: Database) {
        database.orders(6).await;
        for source in [orders(), ordered("order_placed", &["id"], &[]), ordered("order_placed", &["id"], &["customer"])] {
            let relays = [Relay::open(&database, &source).await, Relay::open(&database, &source).await];
            let (mut first, mut second) = (relays[0].worker(), relays[1].worker());
            let batch = claim(&mut first, 6).await;
            let expected = ids(&batch);
            assert_eq!(expected.iter().collect::<HashSet<_>>().len(), 6);
            // An outage or a stop: nothing was settled.
            settle(&mut first, &batch, &Settlement::default()).await;
            let batch = claim(&mut second, 6).await;
            assert_eq!((ids(&batch), batch.taken_over), (expected.clone(), false));
            // The relay dies, and so does its heir; then signal by signal.
            database.expire().await;
            let batch = claim(&mut first, 6).await;
            assert_eq!((ids(&batch), batch.taken_over), (expected.clone(), true));
            database.expire().await;
            let one = claim(&mut second, 6).await;
            assert_eq!((one.signals.len(), ids(&one)), (1, vec![expected[0].clone()]));
            // What is retried keeps its id, too.
            let defer = vec![deferred(&one, 0, Duration::ZERO)];
            settle(&mut second, &one, &Settlement { defer, ..Settlement::default() }).await;
            let mut again = Vec::new();
            while again.len() < 6 {
                let batch = claim(&mut second, 6).await;
                again.extend(ids(&batch));
                settle(&mut second, &batch, &sent(&batch)).await;
            }
            again.sort();
            let mut expected = expected;
            expected.sort();
            assert_eq!(again, expected, "{source:?}");
            drain(&mut first, 9).await;
            database.run("DELETE FROM order_placed").await;
            database
                .run("INSERT INTO order_placed (id, customer) VALUES (1, 'c'), (2, 'c'), (3, 'd'), (4, 'd'), (5, 'e'), (6, 'e')")
                .await;
        }
    }

    pub async fn a_row_that_comes_back_has_another_id(database: Database) {
        database.orders(0).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let mut seen = HashSet::new();
        for n in 0..30 {
            database.run("INSERT INTO order_placed (id, customer) VALUES (7, 'ann')").await;
            let batch = claim(&mut worker, 5).await;
            assert!(batch.signals[0].id.starts_with("OrderPlaced:7~"), "{batch:?}");
            assert!(seen.insert(batch.signals[0].id.clone()), "{n}: {batch:?}");
            assert_eq!(settle_all(&mut worker, &batch).await, (1, 0));
        }
    }

    /// The rest of a batch is left, as by a stop: whatever keeps its ids must not give them to a row that comes back.
    pub async fn a_row_that_comes_back_beside_what_was_left_has_another_id(database: Database) {
        database.orders(0).await;
        for source in [orders(), ordered("order_placed", &["id"], &[]), ordered("order_placed", &["id"], &["payload"])] {
            database.run("INSERT INTO order_placed VALUES (1, 'ann', 'a'), (2, 'bob', 'a')").await;
            let relay = Relay::open(&database, &source).await;
            let mut worker = relay.worker();
            let batch = claim(&mut worker, 2).await;
            settle(&mut worker, &batch, &Settlement { delete: vec![0], ..Settlement::default() }).await;
            database.run("INSERT INTO order_placed VALUES (1, 'ann', 'a')").await;
            let mut again = Vec::new();
            while again.len() < 2 {
                let batch = claim(&mut worker, 2).await;
                assert!(attempts(&batch).iter().all(|&attempt| attempt == 1), "{batch:?}");
                again.extend(ids(&batch));
                settle(&mut worker, &batch, &sent(&batch)).await;
            }
            assert!(again.contains(&ids(&batch)[1]) && !again.contains(&ids(&batch)[0]), "{again:?}, {batch:?}");
            nothing(&mut worker).await;
            assert_eq!(database.count("signalbus_hold").await + database.count("signalbus_claim").await, 0);
        }
    }

    /// What waits behind a dead letter keeps its ids, however long.
    pub async fn what_was_left_behind_a_dead_letter_waits_with_it(database: Database) {
        database.orders(0).await;
        database.run("INSERT INTO order_placed VALUES (1, 'ann', 'a'), (2, 'ann', 'b'), (3, 'bob', 'c')").await;
        let source = Source { holds_dead: true, ..ordered("order_placed", &["id"], &["customer"]) };
        let relay = Relay::open(&database, &source).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 3).await;
        let settlement = Settlement { delete: vec![2], bury: vec![buried(&batch, 0)], ..Settlement::default() };
        settle(&mut worker, &batch, &settlement).await;
        for _ in 0..3 {
            nothing(&mut worker).await;
        }
        database.run("UPDATE signalbus_hold SET state = 'retry', attempts = 0, due_at = 0 WHERE state = 'dead'").await;
        let again = claim(&mut worker, 3).await;
        assert_eq!(ids(&again), ids(&batch)[..2]);
        settle_all(&mut worker, &again).await;
        nothing(&mut worker).await;
        assert_eq!(database.count("signalbus_hold").await, 0);
    }

    /// A relay dies with a claim of which it has settled some batches: whoever goes on gives none of their ids to rows that
    /// come back.
    pub async fn a_row_that_comes_back_into_a_dead_relays_claim_has_another_id(database: Database) {
        database.orders(0).await;
        let rows: Vec<String> = (1..=60).map(|id| format!("({id}, 'ann', 'a')")).collect();
        database.run(&format!("INSERT INTO order_placed VALUES {}", rows.join(", "))).await;
        let relay = Relay::open(&database, &orders()).await;
        let (mut one, mut two) = (relay.worker(), relay.worker());
        // The third claim covers several batches.
        let mut settled = Vec::new();
        for n in 0..4 {
            let worker = if n % 2 == 0 { &mut one } else { &mut two };
            settled.push(claim(worker, 4).await);
            settle_all(worker, settled.last().unwrap()).await;
        }
        let lost = claim(&mut one, 4).await;
        let sent_ids: HashSet<String> = settled.iter().flat_map(ids).collect();
        database.run(&format!("INSERT INTO order_placed VALUES {}", rows[..16].join(", "))).await;
        database.expire().await;
        let heir = Relay::open(&database, &orders()).await;
        let mut worker = heir.worker();
        let mut again = Vec::new();
        while again.len() < 60 {
            let batch = claim(&mut worker, 60).await;
            again.extend(ids(&batch));
            settle_all(&mut worker, &batch).await;
        }
        assert!(again.iter().all(|id| !sent_ids.contains(id)), "{again:?}, {sent_ids:?}");
        assert!(ids(&lost).iter().all(|id| again.contains(id)), "{again:?}, {lost:?}");
        nothing(&mut worker).await;
    }

    /// What waits behind a deferral goes with it, and not before.
    pub async fn what_was_left_behind_a_deferral_waits_with_it(database: Database) {
        database.orders(0).await;
        database.run("INSERT INTO order_placed VALUES (1, 'ann', 'a'), (2, 'ann', 'b'), (3, 'bob', 'c'), (4, 'ann', 'd')").await;
        let relay = Relay::open(&database, &ordered("order_placed", &["id"], &["customer"])).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 4).await;
        let defer = vec![deferred(&batch, 1, Duration::from_secs(3600))];
        settle(&mut worker, &batch, &Settlement { delete: vec![0], defer, ..Settlement::default() }).await;
        assert_eq!(drain(&mut worker, 4).await, ["3"]);
        database.make_due().await;
        let again = claim(&mut worker, 4).await;
        assert_eq!((ids(&again), attempts(&again)), (vec![ids(&batch)[1].clone(), ids(&batch)[3].clone()], vec![2, 1]));
        settle_all(&mut worker, &again).await;
        nothing(&mut worker).await;
    }

    /// Replaced, updated, and gone, each while it is being sent.
    pub async fn only_the_version_that_was_sent_is_deleted(database: Database) {
        database.orders(5).await;
        for source in [orders(), ordered("order_placed", &["id"], &["customer"])] {
            let relay = Relay::open(&database, &source).await;
            let mut worker = relay.worker();
            let batch = claim(&mut worker, 5).await;
            database.run("UPDATE order_placed SET payload = 'new' WHERE id = 2").await;
            database.run("DELETE FROM order_placed WHERE id IN (3, 4)").await;
            database.run("INSERT INTO order_placed VALUES (4, 'bob', 'other')").await;
            assert_eq!(settle_all(&mut worker, &batch).await, (2, 2));
            let again = claim(&mut worker, 5).await;
            assert_eq!(keys(&again), ["2", "4"]);
            assert!(ids(&again).iter().all(|id| !ids(&batch).contains(id)));
            assert_eq!(attempts(&again), [1, 1]);
            assert_eq!(settle_all(&mut worker, &again).await, (2, 0));
            nothing(&mut worker).await;
            database
                .run("INSERT INTO order_placed VALUES (1, 'a', 'p'), (2, 'a', 'p'), (3, 'a', 'p'), (4, 'a', 'p'), (5, 'a', 'p')")
                .await;
        }
    }

    /// Others write to the same database all the time; that alone changes no row.
    pub async fn changes_elsewhere_cost_nothing(database: Database) {
        database.orders(3).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 2).await;
        database.run("INSERT INTO order_placed (id) VALUES (9)").await;
        database.run("UPDATE order_placed SET payload = 'new' WHERE id = 3").await;
        assert_eq!(settle_all(&mut worker, &batch).await, (2, 0));
        assert_eq!(drain(&mut worker, 9).await, ["3", "9"]);
    }

    pub async fn a_restored_backup_repeats_no_id(database: Database) {
        database.orders(3).await;
        let mut seen = HashSet::new();
        for _ in 0..2 {
            let relay = Relay::open(&database, &orders()).await;
            let mut worker = relay.worker();
            let batch = claim(&mut worker, 3).await;
            assert!(ids(&batch).into_iter().all(|id| seen.insert(id)), "{batch:?}");
            settle_all(&mut worker, &batch).await;
            database.run("DELETE FROM signalbus_claim").await;
            database.run("DELETE FROM signalbus_lane").await;
            database.run("INSERT INTO order_placed (id) VALUES (1), (2), (3)").await;
        }
    }

    pub async fn an_id_names_its_database(database: Database) {
        database.orders(1).await;
        let minted = database.lines("SELECT source FROM signalbus_schema").await.remove(0);
        assert!(!minted.is_empty());
        for (source, expected) in [(None, minted.as_str()), (Some("shop-eu"), "shop-eu")] {
            let outbox = Outbox::open(&database.url, 1).unwrap().with_source(source.map(str::to_owned));
            let lane = outbox.signal_table(&orders()).await.unwrap();
            let mut worker = lane.session();
            let batch = claim(&mut worker, 1).await;
            assert!(batch.signals[0].id.ends_with(&format!("@{expected}")), "{batch:?}");
            settle(&mut worker, &batch, &Settlement::default()).await;
        }
    }

    pub async fn a_column_can_be_the_id(database: Database) {
        database.orders(2).await;
        database.run("UPDATE order_placed SET customer = 'event/7' WHERE id = 1").await;
        let source = Source { id: Some("customer".into()), ..orders() };
        let relay = Relay::open(&database, &source).await;
        let mut worker = relay.worker();
        assert_eq!(ids(&claim(&mut worker, 2).await), ["event/7", "customer 2"]);
        let source = Source { id: Some("custmer".into()), ..orders() };
        let error = relay.outbox.signal_table(&source).await.err().unwrap().to_string();
        assert!(error.contains("`id` names column \"custmer\"") && error.contains("\"customer\""), "{error}");
    }
}

crate::on_each_version!(
    every_repetition_has_the_same_id,
    a_row_that_comes_back_has_another_id,
    a_row_that_comes_back_beside_what_was_left_has_another_id,
    what_was_left_behind_a_deferral_waits_with_it,
    what_was_left_behind_a_dead_letter_waits_with_it,
    a_row_that_comes_back_into_a_dead_relays_claim_has_another_id,
    only_the_version_that_was_sent_is_deleted,
    changes_elsewhere_cost_nothing,
    a_restored_backup_repeats_no_id,
    an_id_names_its_database,
    a_column_can_be_the_id,
);
