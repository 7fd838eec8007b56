//! What a grant of a connection covers: nothing that deletes, trims, overwrites or passes for what others send.

use crate::harness::broker::{Broker, Kind};
use crate::harness::bus::{Shop, beside_neighbour, with_neighbour};
use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{self, Context};
use redis::AsyncTypedCommands as _;

fn url(broker: &Broker) -> String {
    format!("url = {:?}", broker.url())
}

/// A stream of a neighbour's, with three messages.
async fn stream(broker: &Broker) -> Context {
    let context = jetstream::new(async_nats::connect(broker.url()).await.unwrap());
    let config = Config { name: "ORDERS".into(), subjects: vec!["orders.>".into()], allow_rollup: true, ..Config::default() };
    context.create_stream(config).await.unwrap();
    for _ in 0..3 {
        context.publish("orders.old", "old".into()).await.unwrap().await.unwrap();
    }
    context
}

async fn messages(context: &Context) -> u64 {
    context.get_stream("ORDERS").await.map_or(0, |stream| stream.cached_info().state.messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_grant_administers_no_nats() {
    let broker = Broker::start(Kind::CurrentNats, "");
    let context = stream(&broker).await;
    for subject in
        ["$JS.API.STREAM.DELETE.ORDERS", "$JS.API.STREAM.PURGE.ORDERS", "$KV.settings.a", "$O.a", "_INBOX.a.b", "$SYS.REQ"]
    {
        let words = format!("destination \"{subject}\" is not granted; add it to `destinations` of connection \"bus\" in ");
        Shop::small(&url(&broker), &format!("destination = '{subject}'\nid = 'none'")).await.buries(2, &words).await;
    }
    let settings = "destination = 'orders.new'\nheaders = 'Nats-Rollup=all'";
    Shop::small(&url(&broker), settings).await.buries(2, "header \"Nats-Rollup\", which acts on other messages, is not").await;
    let settings = "destination = 'orders.new'\nheaders = 'nats-msg-id=Neighbour:1'\nid = 'none'";
    Shop::small(&url(&broker), settings).await.buries(2, "id \"Neighbour:1\" belongs to no signal of this call").await;
    assert_eq!(messages(&context).await, 3);
    // With a pattern that names it, a plugin may do it.
    let settings = "destination = 'orders.new'\nheaders = 'Nats-Rollup=all'";
    Shop::small(&url(&broker), settings).await.granting("options = ['Nats-Rollup']").sends().await;
    assert_eq!(messages(&context).await, 1);
    let config = Config { name: "KV_settings".into(), subjects: vec!["$KV.settings.>".into()], ..Config::default() };
    context.create_stream(config).await.unwrap();
    Shop::small(&url(&broker), "destination = '$KV.settings.a'")
        .await
        .granting("destinations = ['$KV.settings.*']")
        .sends()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_outside_of_its_grant_costs_only_itself() {
    let broker = Broker::start(Kind::CurrentNats, "");
    let context = stream(&broker).await;
    let shop = Shop::with(50, &url(&broker), "destination = 'orders.new'\noptions = 'nats.expected-stream=ORDERS'").await;
    shop.database.run("ALTER TABLE order_placed ADD destination TEXT NOT NULL DEFAULT 'orders.new'").await;
    shop.database.run("UPDATE order_placed SET destination = 'orders.old' WHERE id % 10 = 0").await;
    let shop = shop.granting("destinations = ['orders.new', 'audit.*'], options = ['nats.*']");
    shop.buries(5, "destination \"orders.old\" is not granted; add it to `destinations` of connection \"bus\" in ").await;
    assert_eq!(messages(&context).await, 3 + 45);
    let shop = Shop::small(&url(&broker), "destination = 'orders.new'\noptions = 'nats.expected-stream=ORDERS'").await;
    shop.granting("options = []").buries(2, "option \"nats.expected-stream\" is not granted; add it to `options`").await;
}

/// A stream drops a message whose id it has seen: the signal that has this id would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn ids_of_other_signals_cannot_be_taken() {
    let broker = Broker::start(Kind::CurrentNats, "");
    let context = stream(&broker).await;
    let under = |id: &str| format!("destination = 'orders.new'\nunder = '{id}'");
    let foreign = "Neighbour:7~aaaaaaaaaaaa@shop";
    for id in [foreign, "IDx", "xID", "ID2#", "#ID"] {
        Shop::small(&url(&broker), &under(id)).await.buries(2, "belongs to no signal of this call").await;
    }
    assert_eq!(messages(&context).await, 3);
    for (count, id) in ["ID", "ID#2", "ID/audit", "audit/ID"].into_iter().enumerate() {
        Shop::small(&url(&broker), &under(id)).await.sends().await;
        assert_eq!(messages(&context).await, 3 + 2 * (count as u64 + 1));
    }
    Shop::small(&url(&broker), &under(foreign)).await.granting("ids = 'any'").sends().await;
    assert_eq!(messages(&context).await, 3 + 8 + 1, "the second is a duplicate");
}

/// The bus would be busy for minutes with an id that is made to be looked through again and again.
#[tokio::test(flavor = "multi_thread")]
async fn long_ids_cost_no_time() {
    let broker = Broker::start(Kind::CurrentNats, "");
    let under = format!("under = '{}'", "/".repeat(2_000_000));
    let begun = std::time::Instant::now();
    Shop::with(50, &url(&broker), &under).await.buries(50, "(cut, 2000000 bytes)").await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
}

/// The plugin `publish` makes ids of columns, if its settings say so.
#[tokio::test(flavor = "multi_thread")]
async fn the_setting_id_of_publish_needs_no_grant() {
    let broker = Broker::shared(Kind::Redis);
    let database = with_neighbour().await;
    database.run("UPDATE order_placed SET customer = 'event/' || id").await;
    let settings = "destination = 'events'\nid = '{customer}-{id}'";
    let said = beside_neighbour(&database, &url(broker), settings).run(&["flush", "-w", "0"]);
    assert_eq!((said.status, database.waiting().await), (0, 0), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_grant_trims_no_redis_stream() {
    let broker = Broker::start(Kind::Redis, "stream-node-max-entries 1");
    let mut redis = broker.redis().await;
    for _ in 0..10 {
        redis.xadd("orders", "*", &[("body", "old")]).await.unwrap();
    }
    let trims = "options = 'redis.maxlen=0'";
    let words =
        "option \"redis.maxlen\" is not granted; add it to `options` of connection \"bus\" in `signals.OrderPlaced.grants`";
    Shop::small(&url(&broker), trims).await.buries(2, words).await;
    for wide in ["options = ['*']", "options = ['redis.*']", "destinations = ['orders']"] {
        Shop::small(&url(&broker), trims).await.granting(wide).buries(2, "option \"redis.maxlen\" is not granted").await;
    }
    let spoofs = "options = 'redis.field=id'\nid = 'none'";
    Shop::small(&url(&broker), spoofs).await.buries(2, "option \"redis.field\" is not granted").await;
    assert_eq!(redis.xlen("orders").await.unwrap(), 10);
    Shop::small(&url(&broker), trims).await.granting("options = ['redis.maxlen']").sends().await;
    assert!(redis.xlen("orders").await.unwrap() < 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_grant_overwrites_nothing_in_mqtt() {
    let broker = Broker::shared(Kind::Mosquitto);
    let retains = "destination = 'grants/1'\noptions = 'mqtt.retain=true'";
    Shop::small(&url(broker), retains).await.buries(2, "option \"mqtt.retain\" is not granted").await;
    Shop::small(&url(broker), "destination = '$CONTROL/dynamic-security/v1'")
        .await
        .buries(2, "destination \"$CONTROL/dynamic-security/v1\" is not granted")
        .await;
    let spoofs = "destination = 'grants/1'\nheaders = 'id=Neighbour:1'";
    Shop::small(&url(broker), spoofs).await.buries(2, "id \"Neighbour:1\" belongs to no signal of this call").await;
    Shop::small(&url(broker), "destination = 'grants/1'\noptions = 'mqtt.retain=false'").await.sends().await;
    Shop::small(&url(broker), retains).await.granting("options = ['mqtt.retain']").sends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_grant_writes_no_records_of_kafka() {
    let broker = Broker::shared(Kind::Kafka);
    for topic in ["__consumer_offsets", "__transaction_state", "_schemas"] {
        let words = format!("destination \"{topic}\" is not granted");
        Shop::small(&url(broker), &format!("destination = '{topic}'")).await.buries(2, &words).await;
    }
}
