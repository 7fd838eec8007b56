//! Order at full speed, on real servers: runs of messages, some of which the bus refuses, while connections are cut and
//! servers killed. Each run arrives in its order.

use std::time::{Duration, Instant};

use crate::harness::broker::{Broker, Kind};
use crate::harness::proxy::Proxy;
use crate::harness::redis::{Cluster, now};
use crate::harness::runs::{Promise, RUNS, arrived_in_order, good, publish_through, runs};
use crate::harness::server::{Kind as DatabaseKind, Server};
use crate::harness::{PATIENCE, pause};
use async_nats::jetstream::stream::Config;
use redis::AsyncTypedCommands as _;
use rumqttc::v5::mqttbytes::v5::Publish;
use signalbus::message::Message;

fn kill(broker: &Broker) {
    broker.kill();
    broker.up();
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_it() {
    let broker = Broker::start(Kind::Redis, "proto-max-bulk-len 1mb");
    broker.redis().await.set("text", "x").await.unwrap();
    let proxy = Proxy::to(broker.port());
    let runs = runs(|message, bad| match bad % 6 {
        // Among them those that are corrected: the server is the one that refuses them.
        2..=4 => message.destination = "text".into(),
        1 => message.options = vec![("redis.nothing".into(), String::new())],
        _ => message.body = vec![b'x'; (1 << 20) + 1],
    });
    let reset = || proxy.reset();
    publish_through(&format!("redis://127.0.0.1:{}", proxy.port), &runs, &[&reset, &|| kill(&broker), &reset]).await;
    let ids: Vec<String> = super::redis::entries(&broker).await.into_iter().map(|entry| entry["id"].clone()).collect();
    arrived_in_order(&ids, Promise::NoGap);
}

/// Scripts are not for every user: messages go one by one then.
#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_it_without_scripts() {
    let broker = Broker::start(Kind::Redis, "user ann on >treasure ~orders -@all +xadd +ping");
    let runs = runs(|message, _| message.destination = "forbidden".into());
    publish_through(&format!("redis://ann:treasure@127.0.0.1:{}", broker.port()), &runs, &[]).await;
    let ids: Vec<String> = super::redis::entries(&broker).await.into_iter().map(|entry| entry["id"].clone()).collect();
    arrived_in_order(&ids, Promise::NoGap);
    assert_eq!(ids.len(), RUNS * good().len());
}

/// Slots move, and a node dies, while the streams of all runs are spread over the nodes.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_cluster_keeps_it() {
    let cluster = Cluster::of_masters(String::new).await;
    let mut runs = runs(|message, _| message.options = vec![("redis.nothing".into(), String::new())]);
    for (run, messages) in runs.iter_mut().enumerate() {
        messages.iter_mut().for_each(|message| message.destination = format!("orders-{run}"));
    }
    let reshard = || now(cluster.reshard(0, 1, 2000));
    publish_through(&cluster.url(), &runs, &[&reshard, &|| kill(&cluster.nodes[2]), &reshard]).await;
    cluster.wait_well().await;
    arrived_in_order(&cluster.arrived(&[0, 1, 2]).await, Promise::NoGap);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_keeps_it() {
    let server = tokio::task::spawn_blocking(|| Server::shared(DatabaseKind::Postgres)).await.unwrap();
    let inbox = super::inbox::database().await;
    inbox
        .run(
            "CREATE TABLE inbox (id text PRIMARY KEY, key text, content_type text, headers jsonb, \
             body bytea CHECK (length(body) < 200), n bigserial); \
             INSERT INTO inbox (id, body) VALUES ('taken', 'y')",
        )
        .await;
    let proxy = Proxy::to(server.port());
    let mut runs = runs(|message, bad| match bad % 3 {
        0 => message.body = vec![b'x'; 300],
        1 => message.id = Some("taken".into()),
        _ => message.id = None,
    });
    runs.iter_mut().flatten().for_each(|message| message.destination = "inbox".into());
    let (reset, url) = (|| proxy.reset(), inbox.url.replace(&server.port().to_string(), &proxy.port.to_string()));
    publish_through(&url, &runs, &[&reset, &reset, &reset]).await;
    let ids = inbox.lines("SELECT id FROM inbox WHERE id <> 'taken' ORDER BY n").await;
    arrived_in_order(&ids, Promise::NoGap);
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_keeps_it() {
    let broker = Broker::start(Kind::Mosquitto, "max_packet_size 20000\nmax_queued_messages 0");
    let subscriber = super::mqtt::Subscriber::of(&broker).await;
    let proxy = Proxy::to(broker.port());
    let runs = runs(|message, bad| match bad {
        // Mosquitto closes the connection.
        44 => message.destination = "a/".repeat(300),
        _ if bad % 2 == 0 => message.body = vec![b'x'; 30_000],
        _ => message.destination = "orders/+".into(),
    });
    let reset = || proxy.reset();
    // What it has is saved when it ends.
    let restart = || {
        broker.end();
        broker.up();
    };
    publish_through(&format!("mqtt://127.0.0.1:{}", proxy.port), &runs, &[&reset, &restart, &reset]).await;
    let ids = |seen: &Vec<Publish>| -> Vec<String> { seen.iter().map(|message| super::mqtt::property(message, "id")).collect() };
    let mut seen = subscriber.seen.clone();
    let whole = |seen: &Vec<Publish>| {
        let mut ids = ids(seen);
        ids.sort();
        ids.dedup();
        ids.len() == RUNS * good().len()
    };
    let seen = tokio::time::timeout(crate::harness::PATIENCE, seen.wait_for(whole)).await.unwrap().unwrap();
    arrived_in_order(&ids(&seen), Promise::NoGap);
}

/// With a stream of its own, and with one in which somebody else publishes meanwhile.
async fn nats_keeps_it(kind: Kind) {
    let broker = Broker::start(kind, "max_payload: 20000");
    let stream = super::nats::stream(&broker, Config { max_message_size: 10_000, ..Config::default() }).await;
    let proxy = Proxy::to(broker.port());
    let runs = runs(|message: &mut Message, bad| match bad % 4 {
        0 => message.body = vec![b'x'; 30_000],
        1 => message.body = vec![b'x'; 15_000],
        2 => message.destination = "nowhere".into(),
        _ => message.options = vec![("nats.expected-stream".into(), "OTHER".into())],
    });
    let reset = || proxy.reset();
    publish_through(&format!("nats://127.0.0.1:{}", proxy.port), &runs, &[&reset, &|| kill(&broker), &reset]).await;
    let ids = super::nats::messages(&stream).await;
    let ids: Vec<String> = ids.iter().map(|message| super::nats::header(message, "Nats-Msg-Id").to_owned()).collect();
    arrived_in_order(&ids, Promise::NoGap);
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_of_debian_keeps_it() {
    nats_keeps_it(Kind::Nats).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn current_nats_keeps_it() {
    nats_keeps_it(Kind::CurrentNats).await;
}

/// Somebody else publishes in the same stream meanwhile. Returns whether messages came in batches.
async fn nats_keeps_it_beside_another(kind: Kind, more: serde_json::Value) -> bool {
    let broker = Broker::start(kind, "");
    let client = async_nats::connect(broker.url()).await.unwrap();
    let mut config = serde_json::json!({
        "name": "ORDERS", "subjects": ["orders", "orders.*"], "max_msg_size": 10_000, "retention": "limits",
        "storage": "file", "discard": "old", "num_replicas": 1, "max_consumers": -1, "max_msgs": -1, "max_bytes": -1,
    });
    config.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
    let jetstream = async_nats::jetstream::new(client.clone());
    let created: serde_json::Value = jetstream.request("STREAM.CREATE.ORDERS", &config).await.unwrap();
    assert_eq!(created["config"]["name"], "ORDERS", "{created}");
    let other = tokio::spawn(async move {
        loop {
            client.publish("orders.other", "y".into()).await.unwrap();
            client.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let proxy = Proxy::to(broker.port());
    let runs = runs(|message, _| message.body = vec![b'x'; 15_000]);
    let reset = || proxy.reset();
    publish_through(&format!("nats://127.0.0.1:{}", proxy.port), &runs, &[&reset, &reset]).await;
    other.abort();
    let all = super::nats::messages(&jetstream.get_stream("ORDERS").await.unwrap()).await;
    let ids = all.iter().map(|message| super::nats::header(message, "Nats-Msg-Id").to_owned());
    arrived_in_order(&ids.filter(|id| !id.is_empty()).collect::<Vec<_>>(), Promise::NoGap);
    all.iter().any(|message| !super::nats::header(message, "Nats-Batch-Id").is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_keeps_it_beside_another_publisher() {
    assert!(!nats_keeps_it_beside_another(Kind::Nats, serde_json::json!({})).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_keeps_it_in_atomic_batches() {
    assert!(nats_keeps_it_beside_another(Kind::CurrentNats, serde_json::json!({ "allow_atomic": true })).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_keeps_it() {
    let broker = tokio::task::spawn_blocking(|| Broker::start(Kind::Kafka, "")).await.unwrap();
    super::kafka::create(&broker.url(), "orders", &[("max.message.bytes", "10000")]).await;
    let runs = runs(|message, bad| match bad % 2 {
        0 => message.body = std::iter::repeat_with(|| fastrand::u8(..)).take(20_000).collect(),
        _ => message.options = vec![("kafka.partition".into(), "99".into())],
    });
    publish_through(&broker.url(), &runs, &[&|| kill(&broker)]).await;
    let ids: Vec<String> = super::kafka::message_ids(&broker.url(), "orders");
    arrived_in_order(&ids, Promise::NoGap);
}

/// The leaders of partitions die one after the other, and others take their place.
#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_cluster_keeps_it() {
    let brokers = tokio::task::spawn_blocking(|| {
        let more = "default.replication.factor=3\nmin.insync.replicas=2";
        let first = Broker::start(Kind::Kafka, more);
        let (second, third) = std::thread::scope(|scope| {
            let third = scope.spawn(|| first.joining(3));
            (first.joining(2), third.join().unwrap())
        });
        (first, second, third)
    });
    let (first, second, third) = brokers.await.unwrap();
    super::kafka::create(&first.url(), "orders", &[("max.message.bytes", "10000")]).await;
    let leaders = || super::kafka::leaders(&first.url(), "orders");
    assert!([2, 3].iter().all(|number| leaders().contains(number)), "{:?}", leaders());
    let runs = runs(|message, _| message.body = std::iter::repeat_with(|| fastrand::u8(..)).take(20_000).collect());
    let replace = |broker: &Broker, number: i32| {
        broker.kill();
        while leaders().contains(&number) {
            std::thread::sleep(Duration::from_millis(50));
        }
        broker.up();
    };
    publish_through(&first.url(), &runs, &[&|| replace(&second, 2), &|| replace(&third, 3)]).await;
    let ids: Vec<String> = super::kafka::message_ids(&first.url(), "orders");
    arrived_in_order(&ids, Promise::NoGap);
}

/// The leader of the stream dies, and another server takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_nats_cluster_keeps_it() {
    for atomic in [false, true] {
        let nodes = tokio::task::spawn_blocking(Broker::nats_cluster).await.unwrap();
        let client = async_nats::connect(nodes.each_ref().map(Broker::url).to_vec()).await.unwrap();
        let jetstream = async_nats::jetstream::new(client);
        let config = serde_json::json!({
            "name": "ORDERS", "subjects": ["orders"], "max_msg_size": 10_000, "retention": "limits", "storage": "file",
            "discard": "old", "num_replicas": 3, "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "allow_atomic": atomic,
        });
        let begun = Instant::now();
        loop {
            let created = jetstream.request::<_, _, serde_json::Value>("STREAM.CREATE.ORDERS", &config).await;
            if created.as_ref().is_ok_and(|created| created["config"]["name"] == "ORDERS") {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "no stream is created: {created:?}");
            tokio::time::sleep(pause(begun)).await;
        }
        let stream = jetstream.get_stream("ORDERS").await.unwrap();
        let runs = runs(|message, _| message.body = vec![b'x'; 15_000]);
        let url = format!("nats://{}", nodes.each_ref().map(|node| format!("127.0.0.1:{}", node.port())).join(","));
        let replace = || {
            let info = tokio::runtime::Handle::current().block_on(stream.get_info()).unwrap();
            let leader = info.cluster.and_then(|cluster| cluster.leader).unwrap();
            let is_leader = |node: &&Broker| node.log().lines().any(|line| line.contains("Name:") && line.ends_with(&leader));
            let node = nodes.iter().find(is_leader).unwrap();
            node.kill();
            std::thread::sleep(Duration::from_secs(1));
            node.up();
        };
        publish_through(&url, &runs, &[&replace]).await;
        let ids = super::nats::messages(&stream).await;
        let ids: Vec<String> = ids.iter().map(|message| super::nats::header(message, "Nats-Msg-Id").to_owned()).collect();
        arrived_in_order(&ids, Promise::NoGap);
    }
}

/// A message that is not routed is returned, but not what follows it.
#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_keeps_it() {
    let url = super::amqp::queue("ordered").await;
    let port = url.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).unwrap().0.parse().unwrap();
    let proxy = Proxy::to(port);
    let mut runs = runs(|message, bad| match bad % 4 {
        0 => message.body = vec![b'x'; 200_000],
        1 => message.options = vec![("amqp.mandatory".into(), "true".into())],
        2 => message.destination = "nowhere".into(),
        _ => message.options = vec![("amqp.nothing".into(), String::new())],
    });
    for message in runs.iter_mut().flatten() {
        let is_unroutable = message.options.iter().any(|(name, _)| name == "amqp.mandatory");
        message.key = Some(if is_unroutable { "nobody" } else { "ordered" }.into());
        if message.destination == "orders" {
            message.destination = String::new();
        }
    }
    let reset = || proxy.reset();
    publish_through(&url.replace(&port.to_string(), &proxy.port.to_string()), &runs, &[&reset, &reset, &reset]).await;
    arrived_in_order(&super::amqp::ids(&url, "ordered").await, Promise::Repeated);
}
