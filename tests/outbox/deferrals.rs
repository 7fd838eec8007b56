//! Signals waiting for another attempt.

mod cases {
    use std::time::Duration;

    use signalbus::outbox::Claimed;
    use signalbus::settlement::Settlement;

    use crate::harness::database::Database;
    use crate::harness::lane::{Relay, attempts, burials, buried, claim, deferred, drain, keys, nothing, orders, sent, settle};

    const HOUR: Duration = Duration::from_secs(3600);

    fn near(due: Option<Duration>, expected: Duration) {
        let due = due.expect("nothing is deferred");
        assert!(due <= expected && due > expected - Duration::from_secs(60), "{due:?}");
    }

    pub async fn a_deferred_signal_waits_until_it_is_due(database: Database) {
        database.orders(4).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 4).await;
        let defer = vec![deferred(&batch, 1, HOUR * 2), deferred(&batch, 3, HOUR)];
        settle(&mut worker, &batch, &Settlement { delete: vec![0], defer, ..Settlement::default() }).await;
        let batch = claim(&mut worker, 4).await;
        assert_eq!((keys(&batch), attempts(&batch)), (vec!["3".into()], vec![1]));
        settle(&mut worker, &batch, &sent(&batch)).await;
        near(nothing(&mut worker).await, HOUR);
        database.run("UPDATE signalbus_hold SET due_at = 0 WHERE state = 'retry' AND signal_key = '4'").await;
        let batch = claim(&mut worker, 4).await;
        assert_eq!((keys(&batch), attempts(&batch)), (vec!["4".into()], vec![2]));
        settle(&mut worker, &batch, &sent(&batch)).await;
        near(nothing(&mut worker).await, HOUR * 2);
        assert_eq!(database.count("signalbus_hold WHERE state = 'retry'").await, 1);
    }

    pub async fn attempts_are_counted_and_forgotten_with_the_row(database: Database) {
        database.orders(2).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        for attempt in 1..5 {
            let batch = claim(&mut worker, 2).await;
            assert_eq!(attempts(&batch), [attempt, attempt]);
            let defer = vec![deferred(&batch, 0, HOUR), deferred(&batch, 1, HOUR)];
            settle(&mut worker, &batch, &Settlement { defer, ..Settlement::default() }).await;
            assert_eq!(database.count("signalbus_hold WHERE state = 'retry'").await, 2);
            nothing(&mut worker).await;
            database.make_due().await;
        }
        let batch = claim(&mut worker, 2).await;
        let settlement = Settlement { delete: vec![0], bury: vec![buried(&batch, 1)], ..Settlement::default() };
        settle(&mut worker, &batch, &settlement).await;
        assert_eq!(database.count("signalbus_hold WHERE state = 'retry'").await, 0);
        assert_eq!(relay.outbox.dead_letters(&[], 9).await.unwrap()[0].attempts, 5);
    }

    pub async fn a_due_deferral_behind_the_position_is_found(database: Database) {
        database.orders(6).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 2).await;
        let defer = vec![deferred(&batch, 0, Duration::ZERO)];
        settle(&mut worker, &batch, &Settlement { delete: vec![1], defer, ..Settlement::default() }).await;
        let mut seen = drain(&mut worker, 2).await;
        seen.sort();
        assert_eq!(seen, ["1", "3", "4", "5", "6"]);
    }

    pub async fn a_released_batch_is_charged_nothing(database: Database) {
        database.orders(3).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        for _ in 0..3 {
            let batch = claim(&mut worker, 3).await;
            assert_eq!(attempts(&batch), [1, 1, 1]);
            assert_eq!(settle(&mut worker, &batch, &Settlement::default()).await, 0);
        }
        assert_eq!(database.count("signalbus_hold WHERE state = 'retry'").await, 0);
        // What may have been sent keeps its ids.
        assert_eq!(database.count("signalbus_claim").await, 1);
        drain(&mut worker, 3).await;
        assert_eq!(database.count("signalbus_claim").await, 0);
    }

    /// A signal that failed before keeps its attempts when its batch is released.
    pub async fn a_released_batch_keeps_earlier_attempts(database: Database) {
        database.orders(1).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 1).await;
        let defer = vec![deferred(&batch, 0, HOUR)];
        settle(&mut worker, &batch, &Settlement { defer, ..Settlement::default() }).await;
        database.make_due().await;
        for _ in 0..2 {
            let batch = claim(&mut worker, 1).await;
            assert_eq!(attempts(&batch), [2]);
            settle(&mut worker, &batch, &Settlement::default()).await;
        }
    }

    /// The application may delete or reinsert a row while it is deferred.
    pub async fn the_deferral_of_a_deleted_row_is_forgotten(database: Database) {
        database.orders(2).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 2).await;
        let defer = vec![deferred(&batch, 0, HOUR), deferred(&batch, 1, HOUR)];
        settle(&mut worker, &batch, &Settlement { defer, ..Settlement::default() }).await;
        database.run("DELETE FROM order_placed WHERE id = 1").await;
        database.run("UPDATE signalbus_hold SET due_at = 0 WHERE state = 'retry' AND signal_key = '1'").await;
        near(nothing(&mut worker).await, HOUR);
        assert_eq!(database.count("signalbus_hold WHERE state = 'retry'").await, 1);
        database.make_due().await;
        assert_eq!(drain(&mut worker, 2).await, ["2"]);
        assert_eq!(nothing(&mut worker).await, None);
    }

    pub async fn reasons_of_any_length_and_content_are_kept(database: Database) {
        database.orders(2).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 2).await;
        let reason = format!("a\0b ? 'quoted' \\ {}", "ü".repeat(100_000));
        let mut defer = deferred(&batch, 0, HOUR);
        let mut bury = buried(&batch, 1);
        (defer.reason, bury.reason) = (reason.clone(), reason);
        settle(&mut worker, &batch, &Settlement { defer: vec![defer], bury: vec![bury], ..Settlement::default() }).await;
        let letter = relay.outbox.dead_letters(&[], 1).await.unwrap().remove(0);
        assert!(letter.reason.starts_with("a\u{fffd}b ? 'quoted' \\ üüü"), "{}", letter.reason);
    }

    /// They are passed in slices, and passed again the less often the more they are.
    pub async fn rows_are_found_among_thousands_that_are_held(database: Database) {
        database.orders(12_000).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let mut held = 0;
        while held < 12_000 {
            let batch = claim(&mut worker, 2000).await;
            held += batch.signals.len();
            let settlement = match held % 4000 {
                0 => burials(&batch),
                _ => {
                    let defer = (0..batch.signals.len()).map(|index| deferred(&batch, index, HOUR)).collect();
                    Settlement { defer, ..Settlement::default() }
                }
            };
            settle(&mut worker, &batch, &settlement).await;
        }
        // By a relay that knows nothing yet.
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        database.run("INSERT INTO order_placed VALUES (20000, 'x', 'y')").await;
        assert_eq!(drain(&mut worker, 10).await, ["20000"]);
        let Claimed::Nothing { due_in: Some(due_in), .. } = worker.claim(10, None).await.unwrap() else { panic!() };
        assert!(due_in < HOUR, "the next pass is due sooner than what is held: {due_in:?}");
        // One behind, in the midst, and at the end: the last one does not wait for another pass.
        database.run("UPDATE order_placed SET id = -5 WHERE id = 3").await;
        database.run("INSERT INTO order_placed VALUES (20001, 'x', 'y')").await;
        let mut seen = drain(&mut worker, 10).await;
        assert!(seen.contains(&"20001".to_owned()), "{seen:?}");
        while seen.len() < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            seen.extend(drain(&mut worker, 10).await);
        }
        assert!(seen.contains(&"-5".to_owned()), "{seen:?}");
        // What is due again is found wherever it is, in turns with what is fresh.
        database.make_due().await;
        database.run("INSERT INTO order_placed VALUES (20002, 'x', 'y')").await;
        let turns = [keys(&claim(&mut worker, 10).await), keys(&claim(&mut worker, 10).await)];
        assert!(turns[0].len() >= 9 && turns[1] == ["20002"], "{turns:?}");
    }

    /// More rows than one statement can name.
    pub async fn thousands_of_signals_are_deferred_and_settled_at_once(database: Database) {
        database.orders(2500).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        let batch = claim(&mut worker, 2500).await;
        let defer = (0..2500).map(|index| deferred(&batch, index, HOUR)).collect();
        settle(&mut worker, &batch, &Settlement { defer, ..Settlement::default() }).await;
        database.make_due().await;
        let mut settled = 0;
        while settled < 2500 {
            let batch = claim(&mut worker, 2500).await;
            assert!(attempts(&batch).iter().all(|&attempt| attempt == 2));
            settled += settle(&mut worker, &batch, &sent(&batch)).await;
        }
        assert_eq!(database.count("signalbus_hold WHERE state = 'retry'").await, 0);
    }
}

crate::on_each_version!(
    a_deferred_signal_waits_until_it_is_due,
    attempts_are_counted_and_forgotten_with_the_row,
    a_due_deferral_behind_the_position_is_found,
    a_released_batch_is_charged_nothing,
    a_released_batch_keeps_earlier_attempts,
    the_deferral_of_a_deleted_row_is_forgotten,
    reasons_of_any_length_and_content_are_kept,
    rows_are_found_among_thousands_that_are_held,
    thousands_of_signals_are_deferred_and_settled_at_once,
);
