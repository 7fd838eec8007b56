//! RabbitMQ, with a real server: what arrives, what is refused, and what an outage costs.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use lapin::message::Delivery;
use lapin::options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};

use crate::harness::PATIENCE;
use crate::harness::broker::{Broker, Kind};
use crate::harness::bus::{NARROW, RECOVERY, Shop, bad_messages_cost_only_themselves, certificates, few_repetitions, row_of};
use crate::harness::command::{Project, Said};
use crate::harness::database::Database;
use crate::harness::guest;
use crate::harness::proxy::Proxy;
use crate::harness::refusal::{FEW_AND_MANY, Refusal, refusals_cost_only_themselves};
use crate::harness::relay::{Running, section};
use crate::harness::server::free_port;

/// The broker shared by all tests that do not stop it.
fn shared() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| Broker::start(Kind::Rabbitmq, "max_message_size = 100000"))
}

async fn broker(more: &'static str) -> Broker {
    tokio::task::spawn_blocking(move || Broker::start(Kind::Rabbitmq, more)).await.unwrap()
}

/// Returns the configuration of a signal type with the `publish` plugin, and of a connection.
fn published(url: &str, settings: &str) -> String {
    let more = format!(
        "burst_count = 100\n[signals.OrderPlaced.retry]\nmax_attempts = 3\nbackoff = {{ first = \"10ms\", max = \"10ms\" }}\n\
         [signals.OrderPlaced.grants]\nconnections = [\"bus\"]\n\
         [connections.bus]\nurl = {url:?}\ntimeout = \"3s\"\n\
         [signals.OrderPlaced.settings]\nconnection = \"bus\"\n{settings}\n"
    );
    section("OrderPlaced", &guest("signalbus_publish"), &more)
}

struct Trial {
    database: Database,
    project: Project,
    channel: Channel,
    /// Name of this trial's own exchange, and of a durable queue that gets everything from it.
    name: String,
    _connection: Connection,
}

impl Trial {
    async fn new(rows: u32, settings: &str) -> Self {
        let broker = tokio::task::spawn_blocking(shared).await.unwrap();
        Self::with(&broker.url(), &broker.url(), rows, settings, FieldTable::default()).await
    }

    async fn with(broker: &str, url: &str, rows: u32, settings: &str, arguments: FieldTable) -> Self {
        let database = Database::sqlite().await;
        database.orders(rows).await;
        let (connection, channel) = consumer(broker).await;
        let name = format!("orders-{}", uuid::Uuid::new_v4());
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel.exchange_declare(name.as_str().into(), ExchangeKind::Topic, durable, FieldTable::default()).await.unwrap();
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(name.as_str().into(), durable, arguments).await.unwrap();
        let bind = QueueBindOptions::default();
        channel.queue_bind(name.as_str().into(), name.as_str().into(), "#".into(), bind, FieldTable::default()).await.unwrap();
        let settings = settings.replace("EXCHANGE", &name);
        let text = format!("[database]\nurl = {:?}\n{}", database.url, published(url, &settings));
        let project = Project::new(database.folder(), &text);
        Self { database, project, channel, name, _connection: connection }
    }

    async fn flush(&self) -> Said {
        let mut command = self.project.command(&["flushmany"]);
        tokio::task::spawn_blocking(move || command.output().unwrap().into()).await.unwrap()
    }

    /// Flushes until every attempt is made; returns the output of the last flush.
    async fn flush_out(&self) -> Said {
        loop {
            let said = self.flush().await;
            if self.left().await == 0 {
                return said;
            }
            assert_eq!(said.status, 1, "{said:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn left(&self) -> i64 {
        self.database.waiting().await
    }

    /// Takes all messages from the queue, by message id.
    async fn received(&self) -> HashMap<String, Vec<Delivery>> {
        received(&self.channel, &self.name).await
    }

    fn dead(&self) -> serde_json::Value {
        let listed: serde_json::Value = serde_json::from_str(&self.project.ok(&["dead", "list", "--json"])).unwrap();
        listed["dead_letters"].clone()
    }
}

async fn consumer(url: &str) -> (Connection, Channel) {
    let begun = Instant::now();
    loop {
        match Connection::connect(url, ConnectionProperties::default()).await {
            Ok(connection) => {
                let channel = connection.create_channel().await.unwrap();
                return (connection, channel);
            }
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Takes all messages from a queue, by message id.
async fn received(channel: &Channel, queue: &str) -> HashMap<String, Vec<Delivery>> {
    let mut found: HashMap<String, Vec<Delivery>> = HashMap::new();
    while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap() {
        let id = message.properties.message_id().as_ref().unwrap().to_string();
        found.entry(row_of(&id).to_owned()).or_default().push(message.delivery);
    }
    found
}

fn missing(received: &HashMap<String, Vec<Delivery>>, rows: u32) -> Vec<u32> {
    (1..=rows).filter(|id| !received.contains_key(&format!("OrderPlaced:{id}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_becomes_a_message() {
    let settings = "destination = \"EXCHANGE\"\nkey = \"orders.{customer}\"\nheaders = { x-shop = \"Zoë\", x-row = \"{id}\" }\n\
                    options = { \"amqp.mandatory\" = true, \"amqp.priority\" = 4, \"amqp.expiration\" = 60000, \
                    \"amqp.app-id\" = \"shop\", \"amqp.correlation-id\" = \"c{id}\", \"amqp.timestamp\" = 1700000000 }";
    let trial = Trial::new(3000, settings).await;
    let said = trial.flush().await;
    assert_eq!(said.status, 0, "{said:#?}");
    assert_eq!(trial.left().await, 0);
    let received = trial.received().await;
    assert_eq!(received.len(), 3000);
    assert!(received.values().all(|copies| copies.len() == 1), "a message came twice");
    let message = &received["OrderPlaced:7"][0];
    let row: serde_json::Value = serde_json::from_slice(&message.data).unwrap();
    assert_eq!(row["id"], 7);
    let customer = row["customer"].as_str().unwrap();
    assert_eq!(message.routing_key.as_str(), format!("orders.{customer}"));
    let properties = &message.properties;
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!((*properties.delivery_mode(), *properties.priority()), (Some(2), Some(4)));
    assert_eq!(*properties.timestamp(), Some(1_700_000_000));
    assert_eq!(properties.app_id().as_ref().unwrap().as_str(), "shop");
    assert_eq!(properties.correlation_id().as_ref().unwrap().as_str(), "c7");
    let headers = properties.headers().as_ref().unwrap().inner();
    assert_eq!(headers["x-shop"], AMQPValue::LongString("Zoë".into()));
    assert_eq!(headers["x-row"], AMQPValue::LongString("7".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unroutable_mandatory_message_becomes_a_dead_letter() {
    let settings = "destination = \"amq.direct\"\nkey = \"nobody\"\noptions = { \"amqp.mandatory\" = true }";
    let trial = Trial::new(3, settings).await;
    let said = trial.flush().await;
    assert_eq!(said.status, 1, "{said:#?}");
    assert!(
        trial.dead().to_string().contains("RabbitMQ returned the message: 312 NO_ROUTE; bind a queue to exchange"),
        "{}",
        trial.dead()
    );
    // Without the option, an unroutable message counts as sent: RabbitMQ has accepted and dropped it.
    let trial = Trial::new(3, "destination = \"amq.direct\"\nkey = \"nobody\"").await;
    assert_eq!(trial.flush().await.status, 0);
}

/// With a missing exchange and a message that is too large, the rest of the batch arrives, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_message_does_not_disturb_its_neighbours() {
    let trial = Trial::new(100, "destination = \"{customer}\"\nkey = \"k\"\nbody_column = \"payload\"").await;
    let (database, name) = (&trial.database, &trial.name);
    database.run(&format!("UPDATE order_placed SET customer = '{name}', payload = 'p'")).await;
    database.run("UPDATE order_placed SET customer = 'no such exchange' WHERE id IN (20, 30)").await;
    database.run("UPDATE order_placed SET payload = hex(zeroblob(100000)) WHERE id = 50").await;
    trial.flush_out().await;
    let dead = trial.dead();
    let reason = |id: u32| {
        let letters = dead.as_array().unwrap_or_else(|| panic!("{dead}"));
        let letter = letters.iter().find(|letter| letter["key"].as_str() == Some(&id.to_string()));
        letter.unwrap_or_else(|| panic!("{id} is not a dead letter: {dead}"))["reason"].as_str().unwrap().to_owned()
    };
    for id in [20, 30] {
        let wanted = "NOT_FOUND - no exchange 'no such exchange' in vhost '/'; declare it, or correct `destination`";
        assert!(reason(id).starts_with(wanted), "{}", reason(id));
    }
    assert!(reason(50).contains("message size 200000 is larger than configured max size 100000"), "{}", reason(50));
    assert_eq!(trial.left().await, 0);
    let received = trial.received().await;
    assert_eq!(missing(&received, 100), [20, 30, 50]);
    assert!(received.values().flatten().all(|delivery| delivery.data == b"p"));
}

/// What AMQP cannot carry is told before it reaches the client.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_amqp_cannot_carry_cost_only_themselves() {
    let trial = Trial::new(0, "destination = ''").await;
    let url = format!("url = {:?}", shared().url());
    let bad = [
        ("printf('%.140000c', 'x')", "headers and properties take 140"),
        ("printf('%.131000c', 'x')", "headers and properties take 131"),
    ];
    let settings = format!("destination = '{}'\nheaders = {{ x = '{{customer}}' }}", trial.name);
    let rows = bad_messages_cost_only_themselves(&url, &settings, &bad).await;
    let received = trial.received().await;
    assert!(received.values().all(|copies| copies.len() == 1), "a message came twice");
    let mut arrived: Vec<&String> = received.keys().collect();
    arrived.sort();
    assert_eq!(arrived, rows.iter().collect::<Vec<_>>());
    let settings = format!("destination = '{}'\nkey = '{{customer}}'", trial.name);
    bad_messages_cost_only_themselves(&url, &settings, &[("printf('%.256c', 'x')", "at most 255")]).await;
    let (direct, durable) = (ExchangeKind::Direct, ExchangeDeclareOptions::default());
    trial.channel.exchange_declare("good".into(), direct, durable, FieldTable::default()).await.unwrap();
    let bad = [("printf('%.128c', 'x')", "at most 127"), ("printf('%.300c', 'x')", "at most 127")];
    bad_messages_cost_only_themselves(&url, "destination = '{customer}'", &bad).await;
}

/// A channel that the server has closed is closed here too.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_messages_for_missing_exchanges_leak_no_channel() {
    let broker = broker("channel_max = 200").await;
    for (rows, settings) in [(5000, "destination = 'nowhere {customer}'"), (300, "destination = 'nowhere {id}'")] {
        let trial = Trial::with(&broker.url(), &broker.url(), rows, settings, FieldTable::default()).await;
        trial.flush_out().await;
        let missing = "SELECT count(*) FROM signalbus_hold WHERE reason LIKE 'NOT_FOUND%'";
        assert_eq!(trial.database.number(missing).await, i64::from(rows));
    }
    assert!(!broker.log().contains("channel_max"), "{}", broker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_a_full_queue_are_retried() {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(10));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let url = tokio::task::spawn_blocking(shared).await.unwrap().url();
    let trial = Trial::with(&url, &url, 30, "destination = \"EXCHANGE\"\nkey = \"k\"", arguments).await;
    let said = trial.flush().await;
    assert!(said.stderr.contains("RabbitMQ did not accept the message: a queue is full"), "{said:#?}");
    trial.flush_out().await;
    let received = trial.received().await;
    assert!((10..30).contains(&received.len()), "{}", received.len());
    let dead = trial.dead().as_array().unwrap().len();
    assert_eq!(received.len() + dead, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_reported_without_the_password() {
    let url = tokio::task::spawn_blocking(shared).await.unwrap().url();
    for (wrong, words) in [
        (url.replace("guest:guest", "guest:wr0ng-secret"), "refuses user \"guest\""),
        (url.replace("%2f", "nowhere"), "on virtual host \"nowhere\""),
    ] {
        let settings = "destination = \"EXCHANGE\"\nkey = \"k\"";
        let trial = Trial::with(&url, &wrong, 5, settings, FieldTable::default()).await;
        let said = trial.flush().await;
        assert_eq!(said.status, 78, "{said:#?}");
        assert!(said.stderr.contains(words), "{said:#?}");
        assert!(!said.stderr.contains("wr0ng-secret"), "{said:#?}");
        assert_eq!(trial.left().await, 5);
        assert_eq!(trial.database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'retry'").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_is_down_or_blocks_charges_nothing() {
    let closed = free_port();
    let url = tokio::task::spawn_blocking(shared).await.unwrap().url();
    let down = format!("amqp://guest:guest@127.0.0.1:{closed}/%2f");
    let trial = Trial::with(&url, &down, 5, "destination = \"EXCHANGE\"", FieldTable::default()).await;
    let said = trial.flush().await;
    assert_eq!(said.status, 69, "{said:#?}");
    assert!(said.stderr.contains(&format!("connection \"bus\": 127.0.0.1:{closed}: ")), "{said:#?}");
    assert_eq!(trial.left().await, 5);
    // Without any memory, the broker accepts connections, but reads nothing that is published.
    let tight = broker("vm_memory_high_watermark.absolute = 1MB").await;
    let trial = Trial::with(&url, &tight.url(), 5, "destination = \"amq.topic\"", FieldTable::default()).await;
    let said = trial.flush().await;
    assert_eq!(said.status, 69, "{said:#?}");
    assert!(said.stderr.contains("RabbitMQ "), "{said:#?}");
    assert_eq!(trial.left().await, 5);
    assert_eq!(trial.database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'retry'").await, 0);
}

/// Kills the broker twice while messages flow.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_and_charges_nothing() {
    const ROWS: u32 = 20_000;
    let broker = broker("").await;
    let trial =
        Trial::with(&broker.url(), &broker.url(), 0, "destination = \"EXCHANGE\"\nkey = \"k\"", FieldTable::default()).await;
    // RabbitMQ may lose a confirmed binding if it is killed within a second. A regular restart puts the
    // binding on disk first.
    tokio::task::block_in_place(|| {
        broker.end();
        broker.up();
    });
    let settings = format!("destination = {:?}\nkey = \"k\"", trial.name);
    let mut relay = Running::start(&trial.database, &published(&broker.url(), &settings));
    let sent = || relay.metric("signalbus_sent_total{signal=\"OrderPlaced\"}");
    for part in 0..2 {
        let source = trial.database.series(ROWS / 2);
        let first = part * ROWS / 2;
        trial.database.run(&format!("INSERT INTO order_placed SELECT i + {first}, 'c', 'p' FROM {source}")).await;
        relay.wait("nothing is sent", || sent() > f64::from(first));
        broker.kill();
        relay.wait("the outage is not noticed", || relay.get("/readyz").status == 503);
        let before = sent();
        tokio::task::block_in_place(|| broker.up());
        let back = Instant::now();
        relay.wait("it does not flow again", || sent() > before);
        assert!(back.elapsed() < RECOVERY, "{:?}", back.elapsed());
    }
    let begun = Instant::now();
    while trial.left().await > 0 {
        assert!(begun.elapsed() < PATIENCE, "{}", relay.witness.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(trial.database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'retry'").await, 0);
    assert_eq!(relay.metric("signalbus_deferred_total{signal=\"OrderPlaced\"}"), 0.0);
    assert_eq!(relay.stop(), Some(0));
    let (_connection, channel) = consumer(&broker.url()).await;
    let received = received(&channel, &trial.name).await;
    assert_eq!(missing(&received, ROWS), Vec::<u32>::new());
    let copies: usize = received.values().map(Vec::len).sum();
    println!("{} came twice", copies - received.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_an_operator_closes_cost_nothing() {
    let broker = std::sync::Arc::new(broker("").await);
    let trial = Trial::with(&broker.url(), &broker.url(), 0, "destination = \"EXCHANGE\"", FieldTable::default()).await;
    let name = trial.name.clone();
    let mut relay = Running::start(&trial.database, &published(&broker.url(), &format!("destination = {name:?}")));
    let (source, mut rows) = (trial.database.series(100), 0);
    for _ in 0..2 {
        let closing = tokio::task::spawn_blocking({
            let broker = broker.clone();
            move || broker.close_connections()
        });
        while !closing.is_finished() {
            trial.database.run(&format!("INSERT INTO order_placed SELECT i + {rows}, 'c', 'p' FROM {source}")).await;
            rows += 100;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        closing.await.unwrap();
    }
    let forced = broker.log().matches("connection_forced").count();
    assert!(forced >= 3, "{forced} connections were closed");
    relay.wait_empty(&trial.database, "order_placed").await;
    assert_eq!(trial.database.number("SELECT count(*) FROM signalbus_hold").await, 0);
    assert_eq!(relay.stop(), Some(0));
    // What the test read with was closed, too.
    let (_connection, channel) = consumer(&broker.url()).await;
    assert_eq!(missing(&received(&channel, &name).await, rows), Vec::<u32>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_needs_a_trusted_certificate() {
    let folder = tempfile::TempDir::new().unwrap();
    certificates(folder.path());
    let (file, port) = (|name: &str| folder.path().join(name).display().to_string(), free_port());
    let more = format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}",
        file("ca.pem"),
        file("server.pem"),
        file("server.key"),
    );
    let _broker = tokio::task::block_in_place(|| Broker::start(Kind::Rabbitmq, &more));
    let url = format!("url = 'amqps://guest:guest@127.0.0.1:{port}/%2f'");
    let settings = "destination = 'amq.fanout'";
    Shop::small(&format!("{url}\nca = {:?}", file("ca.pem")), settings).await.sends().await;
    Shop::small(&url, settings).await.cannot(69, &["connection \"bus\"", "is unknown: set `ca`"]).await;
}

/// An IPv6 address is what it says.
#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_address_leads_to_its_server() {
    let broker = Broker::shared(Kind::Rabbitmq);
    let proxy = Proxy::at("[::1]:0", broker.port());
    let settings = "destination = 'amq.direct'\nkey = 'customer'";
    Shop::with(3, &format!("url = 'amqp://guest:guest@[::1]:{}/%2f'", proxy.port), settings).await.sends().await;
    let refused = Shop::small("url = 'amqp://localhost?heartbaet=3'", settings).await.flush();
    assert!(refused.stderr.contains("unknown parameter \"?heartbaet=\""), "{refused:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_network_costs_only_time() {
    let trial = Trial::new(0, "destination = 'EXCHANGE'").await;
    let proxy = Proxy::narrow(shared().port(), NARROW);
    let connection = format!("url = 'amqp://guest:guest@127.0.0.1:{}/%2f'", proxy.port);
    let shop = Shop::heavy(100, &connection, &format!("destination = '{}'", trial.name)).await;
    shop.squeezes().await;
    let received = trial.received().await;
    assert_eq!(missing(&received, 500), Vec::<u32>::new());
    few_repetitions(received.values().map(Vec::len).sum());
}

/// By what it answers, by returning the message, and by closing the channel.
#[tokio::test(flavor = "multi_thread")]
async fn refused_messages_cost_only_themselves() {
    let trial = Trial::new(0, "destination = 'EXCHANGE'").await;
    let (url, name, seen) = (format!("url = {:?}", shared().url()), &trial.name, std::sync::Mutex::new(Vec::new()));
    let arrived = async || {
        while let Some(message) = trial.channel.basic_get(name.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap() {
            seen.lock().unwrap().push(message.properties.message_id().as_ref().unwrap().to_string());
        }
        seen.lock().unwrap().clone()
    };
    let (own, named) = (format!("destination = '{name}'"), format!("customer = '{name}'"));
    let mandatory = "destination = ''\nkey = '{customer}'\noptions = { 'amqp.mandatory' = true }".to_owned();
    for (settings, good, bad, words) in [
        (
            format!("{own}\nbody_column = 'payload'"),
            "lane = lane",
            "payload = hex(zeroblob(60000))",
            "message size 120000 is larger",
        ),
        (
            format!("{own}\nheaders = {{ x = '{{customer}}' }}"),
            "lane = lane",
            "customer = printf('%.140000c', 'x')",
            "properties take",
        ),
        (
            format!("{own}\noptions = {{ 'amqp.user-id' = '{{customer}}' }}"),
            "customer = 'guest'",
            "customer = 'carol'",
            "user_id property",
        ),
        ("destination = '{customer}'".into(), &named, "customer = 'nowhere'", "NOT_FOUND - no exchange 'nowhere'"),
        (mandatory, &named, "customer = 'nowhere'", "RabbitMQ returned the message: 312 NO_ROUTE"),
    ] {
        let refusal = Refusal { settings: &settings, good, bad, words };
        refusals_cost_only_themselves(&url, &refusal, &FEW_AND_MANY, &arrived).await;
    }
}

/// Declares a queue on the shared broker, and returns the broker's URL.
pub(super) async fn queue(name: &str) -> String {
    let broker = tokio::task::spawn_blocking(shared).await.unwrap();
    let (_connection, channel) = consumer(&broker.url()).await;
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), durable, FieldTable::default()).await.unwrap();
    broker.url()
}

/// The ids of the messages in a queue, in their order.
pub(super) async fn ids(url: &str, queue: &str) -> Vec<String> {
    let (_connection, channel) = consumer(url).await;
    let mut ids = Vec::new();
    while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap() {
        ids.push(message.properties.message_id().as_ref().unwrap().to_string());
    }
    ids
}
