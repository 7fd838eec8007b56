//! Claims whose owner died.

mod cases {
    use signalbus::outbox::Settled;

    use crate::harness::database::Database;
    use crate::harness::lane::{Relay, burials, claim, drain, keys, lose, nothing, orders, sent, settle};

    pub async fn an_expired_claim_is_taken_over_once(database: Database) {
        database.orders(10).await;
        let relays = [Relay::open(&database, &orders()).await, Relay::open(&database, &orders()).await];
        let (mut dead, mut heir, mut third) = (relays[0].worker(), relays[1].worker(), relays[1].worker());
        let lost = claim(&mut dead, 4).await;
        database.expire().await;
        let taken = claim(&mut heir, 4).await;
        assert_eq!(keys(&taken), keys(&lost));
        assert!(!taken.suspect);
        assert_eq!(lose(&mut third, 4).await, ["5", "6", "7", "8"]);
        assert!(!dead.renew(&lost).await.unwrap());
        assert_eq!(dead.settle(&lost, &sent(&lost)).await.unwrap(), Settled::Fenced);
        assert_eq!(dead.settle(&lost, &burials(&lost)).await.unwrap(), Settled::Fenced);
        assert_eq!(database.count("order_placed").await, 10);
        assert_eq!(database.count("signalbus_hold WHERE state = 'dead'").await, 0);
        settle(&mut heir, &taken, &sent(&taken)).await;
        assert_eq!(database.count("order_placed").await, 6);
    }

    pub async fn a_renewed_claim_stays(database: Database) {
        database.orders(4).await;
        let relay = Relay::open(&database, &orders()).await;
        let (mut owner, mut other) = (relay.worker(), relay.worker());
        let batch = claim(&mut owner, 4).await;
        database.expire().await;
        assert!(owner.renew(&batch).await.unwrap());
        nothing(&mut other).await;
        settle(&mut owner, &batch, &sent(&batch)).await;
    }

    /// The batch is sent once more, then one by one; the signal that kills its relay again is suspect.
    pub async fn the_signal_that_kills_its_relay_is_isolated(database: Database) {
        database.orders(4).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        lose(&mut worker, 4).await;
        database.expire().await;
        assert_eq!(lose(&mut worker, 4).await, ["1", "2", "3", "4"]);
        database.expire().await;
        let alone = claim(&mut worker, 4).await;
        assert_eq!((keys(&alone), alone.suspect), (vec!["1".into()], false));
        settle(&mut worker, &alone, &sent(&alone)).await;
        let alone = claim(&mut worker, 4).await;
        assert_eq!((keys(&alone), alone.suspect), (vec!["2".into()], false));
        database.expire().await;
        let mut rest = Vec::new();
        for _ in 0..3 {
            let alone = claim(&mut worker, 4).await;
            rest.push((keys(&alone), alone.suspect));
            settle(&mut worker, &alone, &sent(&alone)).await;
        }
        rest.sort();
        assert_eq!(rest, [(vec!["2".into()], true), (vec!["3".into()], false), (vec!["4".into()], false)]);
        nothing(&mut worker).await;
        assert_eq!(database.count("signalbus_claim").await, 0);
    }

    /// After an error, a batch may be dropped unsettled: nobody waits until its claim expires.
    pub async fn a_claim_that_is_left_behind_is_taken_at_once(database: Database) {
        database.orders(6).await;
        let relay = Relay::open(&database, &orders()).await;
        let (mut worker, mut other) = (relay.worker(), relay.worker());
        let first: Vec<String> = claim(&mut worker, 3).await.signals.into_iter().map(|signal| signal.id).collect();
        let again = claim(&mut other, 3).await;
        assert_eq!((again.signals.iter().map(|signal| signal.id.clone()).collect::<Vec<_>>(), again.taken_over), (first, false));
        assert_eq!(drain(&mut worker, 3).await, ["4", "5", "6"]);
        settle(&mut other, &again, &sent(&again)).await;
        assert_eq!(database.count("signalbus_claim").await, 0);
    }

    pub async fn a_claim_whose_rows_are_gone_is_forgotten(database: Database) {
        database.orders(4).await;
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        lose(&mut worker, 2).await;
        database.expire().await;
        database.run("DELETE FROM order_placed WHERE id <= 2").await;
        assert_eq!(drain(&mut worker, 9).await, ["3", "4"]);
        assert_eq!(database.count("signalbus_claim").await, 0);
    }

    pub async fn expired_claims_are_taken_over_one_by_one(database: Database) {
        database.orders(9).await;
        for _ in 0..3 {
            lose(&mut Relay::open(&database, &orders()).await.worker(), 3).await;
        }
        let relay = Relay::open(&database, &orders()).await;
        let mut worker = relay.worker();
        database.expire().await;
        let mut batches = Vec::new();
        for _ in 0..3 {
            batches.push(claim(&mut worker, 3).await);
        }
        nothing(&mut worker).await;
        let mut seen: Vec<String> = batches.iter().flat_map(keys).collect();
        seen.sort();
        assert_eq!(seen, ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    }

    /// The other relay's `burst_count` may be smaller than the dead one's.
    pub async fn rows_left_by_a_smaller_takeover_are_claimed_later(database: Database) {
        database.orders(9).await;
        let relays = [Relay::open(&database, &orders()).await, Relay::open(&database, &orders()).await];
        let (mut dead, mut heir) = (relays[0].worker(), relays[1].worker());
        lose(&mut dead, 9).await;
        database.expire().await;
        let mut seen = drain(&mut heir, 2).await;
        seen.sort();
        assert_eq!(seen, ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    }

    /// A slow owner settles while another worker takes over the expired claim.
    pub async fn a_concurrent_settle_and_takeover_agree(database: Database) {
        for _ in 0..10 {
            database.run("DROP TABLE IF EXISTS order_placed").await;
            database.orders(20).await;
            let relays = [Relay::open(&database, &orders()).await, Relay::open(&database, &orders()).await];
            let (mut slow, mut heir) = (relays[0].worker(), relays[1].worker());
            let batch = claim(&mut slow, 20).await;
            database.expire().await;
            let settlement = sent(&batch);
            let (settled, claimed) = tokio::join!(slow.settle(&batch, &settlement), heir.claim(20, None));
            let handed_out = matches!(claimed.unwrap(), signalbus::outbox::Claimed::Batch(_));
            let left = database.count("order_placed").await;
            match settled.unwrap() {
                Settled::Fenced => assert!(handed_out && left == 20, "{handed_out} {left}"),
                Settled::Done(done) => assert!(done.deleted == 20 && !handed_out && left == 0, "{handed_out} {left}"),
            }
            database.run("DELETE FROM signalbus_claim").await;
        }
    }
}

crate::on_each_database!(
    an_expired_claim_is_taken_over_once,
    a_renewed_claim_stays,
    the_signal_that_kills_its_relay_is_isolated,
    a_claim_that_is_left_behind_is_taken_at_once,
    a_claim_whose_rows_are_gone_is_forgotten,
    expired_claims_are_taken_over_one_by_one,
    rows_left_by_a_smaller_takeover_are_claimed_later,
    a_concurrent_settle_and_takeover_agree,
);
