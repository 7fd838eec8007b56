//! Ordered signal types through the plugin `publish`, in runs: to Redis, from each database.

use redis::AsyncTypedCommands as _;

use crate::harness::broker::{Broker, Kind};
use crate::harness::bus::{Shop, in_order_after_repetitions, row_of};
use crate::harness::database::Database;
use crate::harness::guest;
use crate::harness::relay::{Running, section};
use crate::on_each_database;

/// The numbers of the orders in a stream, as they arrived.
async fn arrived(broker: &Broker, stream: &str) -> Vec<u32> {
    let entries = broker.redis().await.xrange_all(stream).await.unwrap().ids;
    let ids = entries.iter().map(|entry| entry.get::<String>("id").unwrap());
    ids.map(|id| row_of(&id).trim_start_matches("OrderPlaced:").parse().unwrap()).collect()
}

/// Sends everything with `publish`. Returns how many calls that took.
async fn publishes(database: &Database, broker: &Broker, destination: &str, order: &str) -> f64 {
    let more = format!(
        "burst_count = 500\norder_by = ['id']\n{order}\n[signals.OrderPlaced.grants]\nconnections = ['bus']\n\
         [signals.OrderPlaced.settings]\nconnection = 'bus'\ndestination = {destination:?}\n\
         [connections.bus]\nurl = {:?}\n",
        broker.url()
    );
    let mut relay = Running::start(database, &section("OrderPlaced", &guest("signalbus_publish"), &more));
    relay.wait_empty(database, "order_placed").await;
    let calls = relay.metric("signalbus_plugin_seconds_count{signal=\"OrderPlaced\"}");
    assert_eq!(relay.stop(), Some(0));
    calls
}

mod cases {
    use super::*;

    /// In order, each once, and many of a key in a call.
    pub async fn runs_arrive_in_order(database: Database) {
        const ROWS: u32 = 3000;
        let broker = Broker::start(Kind::Redis, "");
        database.orders(0).await;
        for (stream, keys, order) in [("strict", 1, ""), ("keyed", 20, "order_key = ['customer']")] {
            let customer = database.either("i % 20", "i % 20", "i % 20");
            let source = database.series(ROWS);
            database.run(&format!("INSERT INTO order_placed SELECT i, {customer}, 'p' FROM {source}")).await;
            let calls = publishes(&database, &broker, stream, order).await;
            let arrived = arrived(&broker, stream).await;
            assert_eq!(arrived.len(), ROWS as usize);
            for key in 0..keys {
                let own: Vec<u32> = arrived.iter().copied().filter(|number| number % keys == key).collect();
                assert!(own.is_sorted_by(|a, b| a < b), "{stream}, {key}: {own:?}");
            }
            assert!(calls < f64::from(ROWS / 50), "{stream}: {calls} calls");
        }
    }

    /// What follows a message that the bus refuses goes on behind the dead letter.
    pub async fn a_refused_message_ends_its_run(database: Database) {
        let broker = Broker::start(Kind::Redis, "");
        broker.redis().await.set("text", "no stream").await.unwrap();
        database.orders(100).await;
        database.run("UPDATE order_placed SET payload = CASE id WHEN 10 THEN 'text' ELSE 'stream' END").await;
        let more = format!(
            "order_by = ['id']\n[signals.OrderPlaced.grants]\nconnections = ['bus']\n\
             [signals.OrderPlaced.settings]\nconnection = 'bus'\ndestination = '{{payload}}'\n[connections.bus]\nurl = {:?}\n",
            broker.url()
        );
        let mut relay = Running::start(&database, &section("OrderPlaced", &guest("signalbus_publish"), &more));
        relay.wait_empty(&database, "order_placed WHERE id <> 10").await;
        assert_eq!(relay.stop(), Some(0));
        let expected: Vec<u32> = (1..=100).filter(|number| *number != 10).collect();
        assert_eq!(arrived(&broker, "stream").await, expected);
        assert_eq!(database.lines("SELECT signal_key || ' ' || state FROM signalbus_hold").await, ["10 dead"]);
    }
}

on_each_database!(runs_arrive_in_order, a_refused_message_ends_its_run);

/// A server that dies in the midst of runs: nobody is charged, and what is repeated starts over without a gap.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_no_gap() {
    const CUSTOMERS: u32 = 10;
    let broker = Broker::start(Kind::Redis, "appendonly yes\nappendfsync always");
    let url = format!("url = {:?}", broker.url());
    let mut shop = Shop::of_customers(CUSTOMERS, 12_000, &url, "destination = 'orders'").await;
    shop.sections = shop.sections.replace("burst_count = 50", "burst_count = 200\norder_by = ['id']\norder_key = ['customer']");
    shop.survives_death_of(&broker).await;
    in_order_after_repetitions(&arrived(&broker, "orders").await, |number| number % CUSTOMERS, CUSTOMERS);
}
