//! MQTT 5, with a real Mosquitto: what arrives, what is refused, and what an outage costs.

use std::process::Command;
use std::time::Duration;

use crate::harness::broker::{Broker, Kind};
use crate::harness::bus::{
    NARROW, Shop, bad_messages_cost_only_themselves, beside_neighbour, certificates, distinct_rows_of, few_repetitions, ids,
    in_order, row_of, rows_of, with_neighbour,
};
use crate::harness::proxy::Proxy;
use crate::harness::refusal::{FEW_AND_MANY, Refusal, refusals_cost_only_themselves};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Publish;
use rumqttc::v5::{AsyncClient, Event, Incoming, MqttOptions};
use tokio::sync::watch;

/// A subscriber to `orders/#`, whose session outlives the server.
pub(super) struct Subscriber {
    pub(super) seen: watch::Receiver<Vec<Publish>>,
    task: tokio::task::JoinHandle<()>,
}

impl Subscriber {
    pub(super) async fn of(broker: &Broker) -> Self {
        let mut options = MqttOptions::new("subscriber", "127.0.0.1", broker.port());
        options.set_clean_start(false).set_session_expiry_interval(Some(3600)).set_keep_alive(Duration::from_secs(5));
        let (client, mut events) = AsyncClient::new(options, 10);
        client.subscribe("orders/#", QoS::AtLeastOnce).await.unwrap();
        let (to, seen) = watch::channel(Vec::new());
        let (ready, subscribed) = tokio::sync::oneshot::channel();
        let mut ready = Some(ready);
        let task = tokio::spawn(async move {
            let _client = client;
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Incoming::Publish(message))) => to.send_modify(|seen| seen.push(message)),
                    Ok(Event::Incoming(Incoming::SubAck(_))) => drop(ready.take().map(|ready| ready.send(()))),
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        subscribed.await.unwrap();
        Self { seen, task }
    }

    /// Waits for the messages of this many orders, and returns them.
    async fn all(&self, rows: u32) -> Vec<Publish> {
        let mut seen = self.seen.clone();
        let whole = |seen: &Vec<Publish>| distinct_rows_of(seen.iter().map(|message| property(message, "id"))) == ids(rows);
        let enough = usize::try_from(rows).unwrap();
        let arrived = seen.wait_for(|seen| seen.len() >= enough && whole(seen));
        let arrived = tokio::time::timeout(Duration::from_secs(20), arrived).await;
        arrived.unwrap_or_else(|_| panic!("{} of {rows} arrived", self.seen.borrow().len())).unwrap().clone()
    }
}

impl Subscriber {
    /// Waits for these rows, and checks that nothing else has come.
    async fn exactly(&self, rows: &[String], arrived: fn(Vec<String>) -> Vec<String>) {
        let mut seen = self.seen.clone();
        let rows_of = |seen: &Vec<Publish>| arrived(seen.iter().map(|message| property(message, "id")).collect());
        let complete = seen.wait_for(|seen| rows_of(seen).len() >= rows.len());
        let _ = tokio::time::timeout(Duration::from_secs(20), complete).await;
        assert_eq!(rows_of(&self.seen.borrow()), rows);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn property(message: &Publish, name: &str) -> String {
    let properties = &message.properties.as_ref().unwrap().user_properties;
    properties.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

fn url(broker: &Broker) -> String {
    format!("url = {:?}", broker.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives() {
    let broker = Broker::shared(Kind::Mosquitto);
    let subscriber = Subscriber::of(broker).await;
    let settings = "destination = 'orders/new'\nkey = 'customer'\nheaders = 'tenant=a,trace=b'\noptions = 'mqtt.expiry=600'";
    Shop::with(120, &url(broker), settings).await.sends().await;
    let messages = subscriber.all(120).await;
    in_order(&messages.iter().map(|message| property(message, "id")).collect::<Vec<_>>());
    for message in messages {
        assert_eq!((message.topic.as_ref(), message.qos), (&b"orders/new"[..], QoS::AtLeastOnce));
        assert_eq!(["tenant", "trace"].map(|name| property(&message, name)), ["a", "b"]);
        let properties = message.properties.as_ref().unwrap();
        assert_eq!(properties.content_type.as_deref(), Some("application/json"));
        assert!(properties.message_expiry_interval.is_some_and(|seconds| (500..=600).contains(&seconds)));
        let body: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(format!("OrderPlaced:{}", body["id"]), row_of(&property(&message, "id")));
        assert_eq!(body["customer"], property(&message, "key").as_str());
    }
    assert_eq!(subscriber.seen.borrow().len(), 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_message_waits_for_later_subscribers() {
    let broker = Broker::start(Kind::Mosquitto, "");
    // It counts as sent even though nobody has subscribed yet.
    let shop = Shop::with(1, &url(&broker), "destination = 'orders/1'\noptions = 'mqtt.retain=true'").await;
    shop.granting("options = ['mqtt.retain']").sends().await;
    Shop::with(1, &url(&broker), "destination = 'orders/2'").await.sends().await;
    let subscriber = Subscriber::of(&broker).await;
    let seen = subscriber.all(1).await;
    assert_eq!((seen.len(), seen[0].topic.as_ref(), seen[0].retain), (1, &b"orders/1"[..], true));
}

/// Mosquitto keeps acknowledged messages on a regular restart. If it is killed, it may lose some.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_costs_nothing() {
    let broker = Broker::start(Kind::Mosquitto, "max_queued_messages 0");
    let subscriber = Subscriber::of(&broker).await;
    let shop = Shop::with(12_000, &url(&broker), "destination = 'orders/new'").await;
    shop.survives(|| broker.end(), || broker.up()).await;
    subscriber.all(12_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_charges_nothing() {
    let broker = Broker::start(Kind::Mosquitto, "");
    Shop::with(12_000, &url(&broker), "").await.survives_death_of(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undeliverable_messages_become_dead_letters() {
    let broker = Broker::start(Kind::Mosquitto, "max_packet_size 2000\nretain_available false");
    let subscriber = Subscriber::of(&broker).await;
    let shop = Shop::small(&url(&broker), "destination = 'orders/new'").await;
    shop.database.run("UPDATE order_placed SET payload = printf('%.5000c', 'x') WHERE id = 2").await;
    shop.buries(1, "takes packets of at most 2000 bytes, not 5").await;
    assert_eq!(subscriber.all(1).await.len(), 1);
    for topic in ["orders/#", "a/+/b", ""] {
        Shop::small(&url(&broker), &format!("destination = '{topic}'")).await.buries(2, "is not a topic").await;
    }
    let shop = Shop::small(&url(&broker), "options = 'mqtt.retain=true'").await;
    shop.granting("options = ['mqtt.retain']").buries(2, "does not retain messages").await;
    Shop::small(&url(&broker), "options = 'mqtt.qos=0'").await.buries(2, "MQTT has no option \"mqtt.qos\"").await;
}

/// What MQTT cannot carry is told before it reaches the client.
#[tokio::test(flavor = "multi_thread")]
async fn bad_topics_and_properties_cost_only_themselves() {
    let broker = Broker::start(Kind::Mosquitto, "");
    let subscriber = Subscriber::of(&broker).await;
    let bad = [
        ("'a' || char(9) || 'b'", "control character"),
        ("'a' || char(10) || 'b'", "control character"),
        ("'a' || char(0) || 'b'", "control character"),
        ("char(133)", "control character"),
        ("char(65535)", "not a character"),
        ("printf('%.70000c', 'x')", "has 70000 bytes, but MQTT takes at most 65535"),
    ];
    let settings = "destination = 'orders/new'\nkey = '{customer}'";
    let rows = bad_messages_cost_only_themselves(&url(&broker), settings, &bad).await;
    subscriber.exactly(&rows, rows_of).await;
    let more = [("'a+'", "wildcard"), ("'a#b'", "wildcard"), ("'a' || char(9)", "control character")];
    let settings = "destination = 'orders/{customer}'";
    bad_messages_cost_only_themselves(&url(&broker), settings, &[&bad[..5], &more].concat()).await;
}

/// Mosquitto answers a topic of more than 200 levels by closing the connection.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_break_the_connection_cost_only_themselves() {
    let broker = Broker::start(Kind::Mosquitto, "connection_messages true\nlog_type all");
    let subscriber = Subscriber::of(&broker).await;
    let deep = "replace(printf('%.300c', 'x'), 'x', 'a/')";
    let bad = [(deep, "broke 3 connections of its own"), (deep, "broke 3 connections of its own")];
    let rows = bad_messages_cost_only_themselves(&url(&broker), "destination = 'orders/{customer}'", &bad).await;
    // Here a message may come twice: nobody knows what a broken connection had carried.
    subscriber.exactly(&rows, distinct_rows_of).await;
    let connections = broker.log().matches("New client connected").count();
    assert!((10..80).contains(&connections), "{connections}");
}

/// A type of which every message breaks the connection stops nobody but itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_only_breaks_connections_does_not_stop_its_neighbour() {
    let broker = Broker::start(Kind::Mosquitto, "connection_messages true\nlog_type all");
    let subscriber = Subscriber::of(&broker).await;
    let database = with_neighbour().await;
    database.run("UPDATE order_placed SET customer = replace(printf('%.300c', 'x'), 'x', 'a/')").await;
    let project = beside_neighbour(&database, &url(&broker), "destination = 'orders/{customer}'");
    let said = project.run(&["flush", "-w", "0"]);
    assert_eq!(database.number("SELECT count(*) FROM neighbour").await, 0, "{said:#?}");
    let mut neighbours: Vec<String> = (1..=101).map(|id| format!("Neighbour:{id}")).collect();
    neighbours.sort();
    subscriber.exactly(&neighbours, distinct_rows_of).await;
    let connections = broker.log().matches("New client connected").count();
    assert!((10..100).contains(&connections), "{connections}");
}

/// A signal that is alone with such a message is tried again, and becomes a dead letter in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_message_that_breaks_the_connection_makes_no_storm() {
    let broker = Broker::start(Kind::Mosquitto, "connection_messages true\nlog_type all");
    let deep = "a/".repeat(300);
    let shop = Shop::with(1, &url(&broker), &format!("destination = '{deep}'")).await;
    shop.defers(1, "broke 3 connections of its own").await;
    let connections = broker.log().matches("New client connected").count();
    assert!((3..9).contains(&connections), "{connections}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_reported() {
    let folder = tempfile::TempDir::new().unwrap();
    certificates(folder.path());
    let (path, secure) = (folder.path().display(), crate::harness::server::free_port());
    let passwords = folder.path().join("passwords");
    crate::harness::server::run(Command::new("mosquitto_passwd").arg("-b").arg("-c").arg(&passwords).args(["ann", "treasure"]));
    std::fs::write(folder.path().join("rules"), "user ann\ntopic write allowed/#\n").unwrap();
    crate::harness::server::run(Command::new("chmod").arg("-R").arg("a+rX").arg(folder.path()));
    let broker = Broker::start(
        Kind::Mosquitto,
        &format!(
            "allow_anonymous false\npassword_file {path}/passwords\nacl_file {path}/rules\n\
             listener {secure} 127.0.0.1\ncertfile {path}/server.pem\nkeyfile {path}/server.key"
        ),
    );
    let port = broker.port();
    for login in ["ann:hunter2@", "", "bob:hunter2@"] {
        let connection = format!("url = 'mqtt://{login}127.0.0.1:{port}'");
        let words = ["connection \"bus\": MQTT server 127.0.0.1:", "refuses the login: correct it in the URL"];
        Shop::small(&connection, "").await.cannot(78, &words).await;
    }
    let connection = format!("url = 'mqtt://ann:treasure@127.0.0.1:{port}'");
    Shop::small(&connection, "").await.defers(2, "does not allow this user to publish to the topic").await;
    Shop::small(&connection, "destination = 'allowed/orders'").await.sends().await;
    // The same over TLS.
    let connection = format!("url = 'mqtts://ann:treasure@127.0.0.1:{secure}'");
    Shop::small(&connection, "").await.cannot(69, &["is unknown: set `ca`"]).await;
    let connection = format!("{connection}\nca = '{path}/ca.pem'");
    Shop::small(&connection, "destination = 'allowed/orders'").await.sends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_charges_nothing() {
    let port = crate::harness::server::free_port();
    let connection = format!("url = 'mqtt://ann:hunter2@127.0.0.1:{port}'");
    let shop = Shop::small(&connection, "").await;
    shop.cannot(69, &[&format!("MQTT server 127.0.0.1:{port}: "), "refused"]).await;
    shop.stops().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_costs_nothing() {
    let broker = Broker::shared(Kind::Mosquitto);
    let proxy = Proxy::to(broker.port());
    let connection = format!("url = 'mqtt://127.0.0.1:{}'\ntimeout = '1s'", proxy.port);
    Shop::with(6000, &connection, "destination = 'cable'").await.survives_silence_of(&proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_two_signals_is_not_noticed() {
    let broker = Broker::start(Kind::Mosquitto, "");
    let shop = Shop::small(&url(&broker), "").await;
    shop.does_not_notice(|| {
        broker.kill();
        broker.up();
    })
    .await;
}

/// An IPv6 address is what it says.
#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_address_leads_to_its_server() {
    let broker = Broker::shared(Kind::Mosquitto);
    let proxy = Proxy::at("[::1]:0", broker.port());
    Shop::with(3, &format!("url = 'mqtt://[::1]:{}'", proxy.port), "destination = 'six'").await.sends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_network_costs_only_time() {
    let broker = Broker::start(Kind::Mosquitto, "max_queued_messages 0");
    let subscriber = Subscriber::of(&broker).await;
    let proxy = Proxy::narrow(broker.port(), NARROW);
    let connection = format!("url = 'mqtt://127.0.0.1:{}'", proxy.port);
    Shop::heavy(500, &connection, "destination = 'orders/new'").await.squeezes().await;
    few_repetitions(subscriber.all(500).await.len());
}

/// By what it has announced, and by closing the connection: then a message may come twice.
#[tokio::test(flavor = "multi_thread")]
async fn refused_messages_cost_only_themselves() {
    let broker = Broker::start(Kind::Mosquitto, "max_packet_size 20000\nmax_queued_messages 0");
    let subscriber = Subscriber::of(&broker).await;
    let arrived = async || {
        let ids = || subscriber.seen.borrow().iter().map(|message| property(message, "id")).collect::<Vec<_>>();
        let mut count = usize::MAX;
        while count != ids().len() {
            count = ids().len();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        ids()
    };
    let deep = "customer = replace(printf('%.300c', 'x'), 'x', 'a/')";
    for (settings, bad, words, counts) in [
        ("destination = 'orders'", "payload = printf('%.30000c', 'x')", "packets of at most 20000 bytes", &FEW_AND_MANY[..]),
        ("destination = 'orders/{customer}'", "customer = 'a+'", "wildcard", &FEW_AND_MANY),
        ("destination = 'orders/{customer}'", deep, "broke 3 connections of its own", &FEW_AND_MANY[..3]),
    ] {
        let refusal = Refusal { settings, good: "customer = 'good'", bad, words };
        refusals_cost_only_themselves(&url(&broker), &refusal, counts, arrived).await;
    }
}
