//! What joins a claim of an ordered type while the rows that it has are sent.

mod cases {
    use std::time::Duration;

    use signalbus::outbox::{Batch, Settled, Worker};
    use signalbus::settlement::Settlement;

    use crate::harness::database::Database;
    use crate::harness::lane::{Relay, claim, deferred, drain, keys, nothing, ordered, sent, settle};

    const HOUR: Duration = Duration::from_secs(3600);
    const ORDER_KEYS: [&[&str]; 2] = [&[], &["account"]];

    /// Creates `moves (id, at, account)` with keys that do not come back; four rows have the same `at`.
    async fn moves(database: &Database, rows: u32) {
        let key = database.either(
            "INTEGER PRIMARY KEY AUTOINCREMENT",
            "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            "BIGINT AUTO_INCREMENT PRIMARY KEY",
        );
        database.run("DROP TABLE IF EXISTS moves").await;
        let at = database.either("INTEGER", "bigint", "BIGINT");
        database.run(&format!("CREATE TABLE moves (id {key}, at {at} NOT NULL, account VARCHAR(40))")).await;
        database.run("CREATE INDEX moves_at ON moves (at, id)").await;
        let series = database.series(rows);
        let account = database.either("'a' || (i % 2)", "'a' || (i % 2)::text", "CONCAT('a', i % 2)");
        let at = database.either("(i - 1) / 4", "(i - 1) / 4", "(i - 1) DIV 4");
        database.run(&format!("INSERT INTO moves (at, account) SELECT {at}, {account} FROM {series} ORDER BY i")).await;
    }

    fn numbers(from: u32, to: u32) -> Vec<String> {
        (from..=to).map(|n| n.to_string()).collect()
    }

    fn ids(batch: &Batch) -> Vec<&str> {
        batch.signals.iter().map(|signal| signal.id.as_str()).collect()
    }

    async fn ahead(worker: &mut Worker<'_>, claimed: &Batch, limit: usize) -> Option<Batch> {
        let ahead = worker.ahead(claimed).expect("something may join the claim");
        worker.claim_ahead(ahead, limit, None).await.unwrap()
    }

    /// What joins a claim is what comes next, and nobody else has it.
    pub async fn what_comes_next_joins_the_claim(database: Database) {
        for order_key in ORDER_KEYS {
            moves(&database, 14).await;
            let relay = Relay::open(&database, &ordered("moves", &["at", "id"], order_key)).await;
            let (mut worker, mut second) = (relay.worker(), relay.worker());
            worker.cover(2);
            second.cover(2);
            let first = claim(&mut worker, 3).await;
            let next = ahead(&mut second, &first, 3).await.unwrap();
            assert_eq!((keys(&first), keys(&next)), (numbers(1, 6), numbers(7, 12)));
            assert!(nothing(&mut relay.worker()).await.is_none());
            assert_eq!(database.count("signalbus_claim").await, 1);
            for batch in first.split(3, 1).remove(0) {
                assert_eq!(settle(&mut worker, &batch, &sent(&batch)).await, 3);
            }
            let last = ahead(&mut second, &next, 3).await.unwrap();
            assert_eq!(keys(&last), numbers(13, 14));
            assert_eq!(settle(&mut worker, &next, &sent(&next)).await, 6);
            assert_eq!(database.count("signalbus_claim").await, 1);
            assert_eq!(settle(&mut worker, &last, &sent(&last)).await, 2);
            assert_eq!((database.count("moves").await, database.count("signalbus_claim").await), (0, 0));
            assert!(second.ahead(&last).is_none(), "there was no more");
        }
    }

    /// If nothing comes next, the last settle ends the claim, or who looked for it does.
    pub async fn a_claim_ends_where_nothing_joins(database: Database) {
        for settled_first in [true, false] {
            moves(&database, 4).await;
            let relay = Relay::open(&database, &ordered("moves", &["id"], &[])).await;
            let (mut worker, mut second) = (relay.worker(), relay.worker());
            let first = claim(&mut worker, 4).await;
            let looks = second.ahead(&first).unwrap();
            if settled_first {
                assert_eq!(settle(&mut worker, &first, &sent(&first)).await, 4);
                assert_eq!(database.count("signalbus_claim").await, 1);
            }
            assert!(second.claim_ahead(looks, 4, None).await.unwrap().is_none());
            if !settled_first {
                assert_eq!(database.count("signalbus_claim").await, 1);
                assert_eq!(settle(&mut worker, &first, &sent(&first)).await, 4);
            }
            assert_eq!(database.count("signalbus_claim").await, 0);
        }
    }

    /// A relay that takes a claim over has what has joined it, too, in its order and under its ids.
    pub async fn what_joined_a_lost_claim_keeps_its_ids(database: Database) {
        for order_key in ORDER_KEYS {
            moves(&database, 14).await;
            let relay = Relay::open(&database, &ordered("moves", &["id"], order_key)).await;
            let (mut worker, mut second) = (relay.worker(), relay.worker());
            let first = claim(&mut worker, 4).await;
            second.cover(2);
            let next = ahead(&mut second, &first, 3).await.unwrap();
            assert_eq!(settle(&mut worker, &first, &sent(&first)).await, 4);
            let parts = next.split(3, 1).remove(0);
            assert_eq!(settle(&mut worker, &parts[0], &sent(&parts[0])).await, 3);
            database.expire().await;
            let other = Relay::open(&database, &ordered("moves", &["id"], order_key)).await;
            let mut other = other.worker();
            let again = claim(&mut other, 4).await;
            assert_eq!(keys(&again), numbers(8, 11));
            assert_eq!(ids(&again)[..3], ids(&parts[1])[..]);
            assert!(again.taken_over);
            assert!(ahead(&mut second, &parts[1], 3).await.is_none(), "it is another's");
            settle(&mut other, &again, &sent(&again)).await;
            assert_eq!(drain(&mut other, 4).await, numbers(12, 14));
            assert_eq!(database.count("signalbus_claim").await, 0);
        }
    }

    /// However long a claim has grown, what may have been sent of its last rows keeps its ids.
    pub async fn what_a_claim_leaves_behind_keeps_its_ids(database: Database) {
        moves(&database, 12).await;
        let relay = Relay::open(&database, &ordered("moves", &["id"], &[])).await;
        let (mut worker, mut second) = (relay.worker(), relay.worker());
        second.cover(2);
        let mut last = claim(&mut worker, 4).await;
        for _ in 0..2 {
            let next = ahead(&mut second, &last, 2).await.unwrap();
            settle(&mut worker, &last, &sent(&last)).await;
            last = next;
        }
        let sent_first = Settlement { delete: vec![0], ..Settlement::default() };
        assert_eq!((keys(&last), settle(&mut worker, &last, &sent_first).await), (numbers(9, 12), 1));
        let left = ids(&last)[1..].to_vec();
        let mut again = Vec::new();
        for _ in 0..2 {
            let batch = claim(&mut worker, 2).await;
            again.extend(ids(&batch).into_iter().map(str::to_owned));
            settle(&mut worker, &batch, &sent(&batch)).await;
        }
        assert_eq!(again, left);
    }

    /// What has joined a claim is given back if something of it stays: it comes behind that.
    pub async fn what_joined_a_claim_waits_for_what_stays(database: Database) {
        for order_key in ORDER_KEYS {
            moves(&database, 8).await;
            let relay = Relay::open(&database, &ordered("moves", &["id"], order_key)).await;
            let (mut worker, mut second) = (relay.worker(), relay.worker());
            let first = claim(&mut worker, 4).await;
            let next = ahead(&mut second, &first, 4).await.unwrap();
            let failed = Settlement { delete: vec![0, 1, 2], defer: vec![deferred(&first, 3, HOUR)], ..Settlement::default() };
            assert_eq!(settle(&mut worker, &first, &failed).await, 3);
            second.give_back(&next).await.unwrap();
            assert_eq!(database.count("signalbus_claim").await, 0);
            // Rows 4, 6 and 8 have one account.
            let others = if order_key.is_empty() { vec![] } else { vec!["5", "7"] };
            assert_eq!(drain(&mut worker, 4).await, others);
            database.make_due().await;
            let rest: Vec<String> = numbers(4, 8).into_iter().filter(|key| !others.contains(&key.as_str())).collect();
            assert_eq!(drain(&mut worker, 4).await, rest);
        }
    }

    /// A row that changed while it was sent comes next, as it is now: what has joined the claim is given back.
    pub async fn what_joined_a_claim_waits_for_what_has_changed(database: Database) {
        moves(&database, 8).await;
        let relay = Relay::open(&database, &ordered("moves", &["id"], &[])).await;
        let (mut worker, mut second) = (relay.worker(), relay.worker());
        let first = claim(&mut worker, 4).await;
        let next = ahead(&mut second, &first, 4).await.unwrap();
        database.run("UPDATE moves SET account = 'other' WHERE id = 2").await;
        match worker.settle(&first, &sent(&first)).await.unwrap() {
            Settled::Done(deletions) => assert_eq!((deletions.deleted, deletions.changed), (3, 1)),
            Settled::Fenced => panic!("the claim was lost"),
        }
        second.give_back(&next).await.unwrap();
        let rest: Vec<String> = numbers(2, 8).into_iter().filter(|key| !["3", "4"].contains(&key.as_str())).collect();
        assert_eq!(drain(&mut worker, 4).await, rest);
    }

    /// What commits while the rows of a claim are sent comes before what lies behind it in the order.
    pub async fn what_commits_late_joins_in_its_place(database: Database) {
        for order_key in ORDER_KEYS {
            moves(&database, 12).await;
            database.run("DELETE FROM moves WHERE id IN (3, 9)").await;
            let relay = Relay::open(&database, &ordered("moves", &["id"], order_key)).await;
            let (mut worker, mut second) = (relay.worker(), relay.worker());
            let first = claim(&mut worker, 4).await;
            assert_eq!(keys(&first), ["1", "2", "4", "5"]);
            let forced = database.either("", "OVERRIDING SYSTEM VALUE ", "");
            let late = format!("INSERT INTO moves (id, at, account) {forced}VALUES (3, 0, 'a1'), (9, 2, 'a1')");
            database.run(&late).await;
            let next = ahead(&mut second, &first, 4).await.unwrap();
            assert_eq!(keys(&next), ["3", "6", "7", "8"]);
            settle(&mut worker, &first, &sent(&first)).await;
            settle(&mut worker, &next, &sent(&next)).await;
            assert_eq!(drain(&mut worker, 4).await, numbers(9, 12));
        }
    }

    /// What is due again, or was claimed by somebody who died, is not passed by.
    pub async fn nothing_joins_before_what_is_due_again(database: Database) {
        moves(&database, 12).await;
        let relay = Relay::open(&database, &ordered("moves", &["id"], &["account"])).await;
        let (mut worker, mut second) = (relay.worker(), relay.worker());
        let first = claim(&mut worker, 2).await;
        let failed = Settlement { delete: vec![0], defer: vec![deferred(&first, 1, HOUR)], ..Settlement::default() };
        settle(&mut worker, &first, &failed).await;
        let first = claim(&mut worker, 2).await;
        assert_eq!(keys(&first), ["3", "5"]);
        database.make_due().await;
        assert!(ahead(&mut second, &first, 2).await.is_none());
        let due = claim(&mut second, 2).await;
        assert_eq!(keys(&due), ["2", "4"]);
        assert_eq!(keys(&ahead(&mut second, &due, 2).await.unwrap()), ["6", "8"]);
    }

    /// A claim grows for a second; then it ends, and others have their turn.
    pub async fn a_claim_does_not_grow_forever(database: Database) {
        moves(&database, 8).await;
        let relay = Relay::open(&database, &ordered("moves", &["id"], &[])).await;
        let mut worker = relay.worker();
        let first = claim(&mut worker, 4).await;
        assert!(ahead(&mut worker, &first, 2).await.is_some());
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert!(worker.ahead(&first).is_none());
    }

    /// Lanes of a claim have no order key in common, and each has its rows in order.
    pub async fn lanes_share_no_order_key(database: Database) {
        moves(&database, 40).await;
        let relay = Relay::open(&database, &ordered("moves", &["id"], &["account"])).await;
        let mut worker = relay.worker();
        worker.cover(8);
        let lanes = claim(&mut worker, 5).await.split(5, 4);
        let keys: Vec<Vec<String>> = lanes.iter().map(|lane| lane.iter().flat_map(keys).collect()).collect();
        let odd = |remainder: u32| (1..=40).filter(|n| n % 2 == remainder).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(keys, [odd(1), odd(0)]);
        for batch in lanes.into_iter().flatten().rev() {
            assert_eq!(settle(&mut worker, &batch, &sent(&batch)).await, 5);
        }
        assert_eq!((database.count("moves").await, database.count("signalbus_claim").await), (0, 0));
    }
}

crate::on_each_database!(
    what_comes_next_joins_the_claim,
    a_claim_ends_where_nothing_joins,
    what_joined_a_lost_claim_keeps_its_ids,
    what_a_claim_leaves_behind_keeps_its_ids,
    what_joined_a_claim_waits_for_what_stays,
    what_joined_a_claim_waits_for_what_has_changed,
    what_commits_late_joins_in_its_place,
    nothing_joins_before_what_is_due_again,
    a_claim_does_not_grow_forever,
    lanes_share_no_order_key,
);
