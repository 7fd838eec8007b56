//! Batches have a bound in bytes.

mod cases {
    use signalbus::outbox::Source;

    use crate::harness::database::Database;
    use crate::harness::lane::{Relay, claim, drain, keys, ordered, orders, sent, settle};

    const ROW: usize = 100_000;

    fn bounded(source: Source) -> Source {
        Source { burst_bytes: Some(10 * ROW + 5000), ..source }
    }

    /// Rows with 100 kB each, and one of 2 MB.
    async fn large(database: &Database, rows: u32) {
        let text = database.either("TEXT", "TEXT", "LONGTEXT");
        let payload = |size: usize| match database.either("s", "p", "m") {
            "s" => format!("printf('%.{size}c', 'x')"),
            _ => format!("repeat('x', {size})"),
        };
        database.run(&format!("CREATE TABLE order_placed (id BIGINT PRIMARY KEY, customer INT, payload {text})")).await;
        let series = database.series(rows);
        database.run(&format!("INSERT INTO order_placed SELECT i, i % 3, {} FROM {series}", payload(ROW))).await;
        database.run(&format!("UPDATE order_placed SET payload = {} WHERE id = 17", payload(20 * ROW))).await;
    }

    pub async fn a_batch_is_bounded_in_bytes(database: Database) {
        large(&database, 60).await;
        let relay = Relay::open(&database, &bounded(orders())).await;
        let mut worker = relay.worker();
        let mut seen = Vec::new();
        while seen.len() < 60 {
            let batch = claim(&mut worker, 500).await;
            let keys = keys(&batch);
            assert!(keys.len() <= 10, "{keys:?}");
            assert!(keys.len() == 1 || !keys.contains(&"17".to_owned()), "{keys:?}");
            settle(&mut worker, &batch, &sent(&batch)).await;
            seen.extend(keys);
        }
        seen.sort_by_key(|key| key.parse::<u32>().unwrap());
        assert_eq!(seen, (1..=60).map(|key| key.to_string()).collect::<Vec<_>>());
        assert_eq!(database.count("signalbus_claim").await, 0);
    }

    /// A full batch tells that there is more: small rows make a large batch again.
    pub async fn batches_grow_again_with_smaller_rows(database: Database) {
        large(&database, 40).await;
        let relay = Relay::open(&database, &bounded(orders())).await;
        let mut worker = relay.worker();
        assert!(claim(&mut worker, 500).await.full);
        drop(worker);
        let relay = Relay::open(&database, &bounded(orders())).await;
        drain(&mut relay.worker(), 500).await;
        let series = database.series(400);
        database.run(&format!("INSERT INTO order_placed SELECT i, 1, 'x' FROM {series}")).await;
        let mut worker = relay.worker();
        let mut sizes = Vec::new();
        for _ in 0..8 {
            let batch = claim(&mut worker, 40).await;
            settle(&mut worker, &batch, &sent(&batch)).await;
            sizes.push(batch.signals.len());
        }
        assert_eq!(sizes.last(), Some(&40), "{sizes:?}");
    }

    pub async fn an_ordered_batch_is_bounded_in_bytes(database: Database) {
        for order_key in [&[][..], &["customer"]] {
            database.run("DROP TABLE IF EXISTS order_placed").await;
            large(&database, 45).await;
            let relay = Relay::open(&database, &bounded(ordered("order_placed", &["id"], order_key))).await;
            let seen = drain(&mut relay.worker(), 500).await;
            assert_eq!(seen, (1..=45).map(|key| key.to_string()).collect::<Vec<_>>());
        }
    }

    /// What a relay left behind is taken over in bounded batches, too.
    pub async fn a_takeover_is_bounded_in_bytes(database: Database) {
        large(&database, 40).await;
        let relay = Relay::open(&database, &orders()).await;
        let lost = crate::harness::lane::lose(&mut relay.worker(), 30).await;
        assert_eq!(lost.len(), 30);
        database.expire().await;
        let heir = Relay::open(&database, &bounded(orders())).await;
        let mut worker = heir.worker();
        let mut seen = Vec::new();
        while seen.len() < 40 {
            let batch = claim(&mut worker, 500).await;
            assert!(batch.signals.len() <= 10);
            settle(&mut worker, &batch, &sent(&batch)).await;
            seen.extend(keys(&batch));
        }
        seen.sort_by_key(|key| key.parse::<u32>().unwrap());
        assert_eq!(seen, (1..=40).map(|key| key.to_string()).collect::<Vec<_>>());
    }
}

crate::on_each_database!(
    a_batch_is_bounded_in_bytes,
    batches_grow_again_with_smaller_rows,
    an_ordered_batch_is_bounded_in_bytes,
    a_takeover_is_bounded_in_bytes,
);
