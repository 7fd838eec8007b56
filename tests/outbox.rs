//! The outbox on each database: claims, settles, and what keeps them apart.

mod harness;

mod cases {
    use crate::harness::database::Database;
    use signalbus::outbox::{Claimed, Outbox, Settled, Source};
    use signalbus::settlement::Settlement;

    pub async fn a_claimed_row_is_gone_once_it_is_settled(database: Database) {
        database.orders(10).await;
        let outbox = Outbox::open(&database.url, 4).unwrap();
        let source = Source { signal: "OrderPlaced".into(), table: "order_placed".into(), ..Source::default() };
        let lane = outbox.lane(&source).await.unwrap();
        let mut worker = lane.session();
        let Claimed::Batch(batch) = worker.claim(4, None).await.unwrap() else { panic!("nothing to claim") };
        let keys: Vec<&str> = batch.signals.iter().map(|signal| signal.key.as_str()).collect();
        assert_eq!(keys, ["1", "2", "3", "4"]);
        let settlement = Settlement { delete: vec![0, 2], ..Settlement::default() };
        assert_eq!(worker.settle(&batch, &settlement).await.unwrap(), Settled::Done { deleted: 2 });
        assert_eq!(worker.settle(&batch, &settlement).await.unwrap(), Settled::Fenced);
        assert_eq!(outbox.pending(&source).await.unwrap(), 8);
    }
}

on_each_database!(a_claimed_row_is_gone_once_it_is_settled);
