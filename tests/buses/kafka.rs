//! Apache Kafka; and, for what it refuses now and then, the cluster that librdkafka simulates over
//! real sockets.

mod login;

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::harness::PATIENCE;
use crate::harness::broker::{Broker, Kind};
use crate::harness::bus::{
    NARROW, Shop, bad_messages_cost_only_themselves, beside_neighbour, certificates, distinct_rows_of, few_repetitions, ids,
    in_order, row_of, rows_of, with_neighbour,
};
use crate::harness::proxy::Proxy;
use crate::harness::refusal::{FEW_AND_MANY, Refusal, refusals_cost_only_themselves};
use crate::harness::server::free_port;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaErrorCode, RDKafkaRespErr};
use tempfile::TempDir;

/// A server that refuses what it is told to.
type Cluster = MockCluster<'static, DefaultProducerContext>;

struct Record {
    key: Option<String>,
    headers: HashMap<String, String>,
    body: serde_json::Value,
    partition: i32,
    timestamp: Option<i64>,
}

/// A server that lets everybody in at one port, and asks for a login at others.
struct Guarded {
    broker: Broker,
    login: u16,
    /// Encrypted.
    secure: u16,
    /// With `ca.pem`.
    certificates: TempDir,
}

impl Guarded {
    /// The server that the tests share which do not kill it.
    async fn shared() -> &'static Self {
        static SHARED: OnceLock<Guarded> = OnceLock::new();
        tokio::task::spawn_blocking(|| SHARED.get_or_init(Self::start)).await.unwrap()
    }

    fn start() -> Self {
        const PASSWORDS: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required user_carol=\"treasure\";";
        const SCRAM: &str = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let (login, secure, folder) = (free_port(), free_port(), TempDir::new().unwrap());
        certificates(folder.path());
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let own = folder.path().join("own.pem");
        std::fs::write(&own, read("server.key") + &read("server.pem")).unwrap();
        let lines = [
            format!("SASL_PLAINTEXT://127.0.0.1:{login}"),
            format!("SASL_SSL://127.0.0.1:{secure}"),
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".into(),
            format!("listener.name.sasl_plaintext.plain.sasl.jaas.config={PASSWORDS}"),
            format!("listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config={SCRAM}"),
            format!("listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config={SCRAM}"),
            "listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN".into(),
            format!("listener.name.sasl_ssl.plain.sasl.jaas.config={PASSWORDS}"),
            format!("ssl.keystore.type=PEM\nssl.keystore.location={}", own.display()),
        ];
        Self { broker: Broker::start(Kind::Kafka, &lines.join("\n")), login, secure, certificates: folder }
    }
}

/// A topic of a test's own on the shared server.
struct Topic {
    servers: String,
    name: String,
}

impl Topic {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(config: &[(&str, &str)]) -> Self {
        let topic = Self::missing().await;
        topic.create(config).await;
        topic
    }

    /// The name of one that nobody has created.
    async fn missing() -> Self {
        let servers = Guarded::shared().await.broker.url();
        Self { servers, name: format!("orders-{}", uuid::Uuid::new_v4()) }
    }

    /// With four partitions.
    async fn create(&self, config: &[(&str, &str)]) {
        create(&self.servers, &self.name, config).await;
    }

    fn url(&self) -> String {
        url(&self.servers)
    }

    /// The setting that has messages go to it.
    fn destination(&self) -> String {
        format!("destination = '{}'", self.name)
    }

    fn records(&self) -> Vec<Record> {
        records(&self.servers, &self.name)
    }
}

pub(super) async fn create(servers: &str, name: &str, config: &[(&str, &str)]) {
    let servers = servers.trim_start_matches("kafka://");
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let mut topic = NewTopic::new(name, 4, TopicReplication::Fixed(-1));
    for (property, value) in config {
        topic = topic.set(property, value);
    }
    let (begun, options) = (Instant::now(), AdminOptions::new().operation_timeout(Some(PATIENCE)));
    while let Err((_, error)) = &admin.create_topics([&topic], &options).await.unwrap()[0] {
        // A server answers a moment before it may have partitions.
        let soon = *error == RDKafkaErrorCode::InvalidReplicationFactor && begun.elapsed() < PATIENCE;
        assert!(soon, "topic {name}: {error}");
    }
    // It may know of them a moment later than its controller.
    let known = || admin.inner().fetch_metadata(Some(name), PATIENCE).unwrap();
    while known().topics().first().is_none_or(|topic| topic.partitions().len() < 4) {
        assert!(begun.elapsed() < PATIENCE, "topic {name} does not appear");
    }
}

/// The servers that lead the partitions of a topic.
pub(super) fn leaders(servers: &str, name: &str) -> Vec<i32> {
    let servers = servers.trim_start_matches("kafka://");
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
    let metadata = admin.inner().fetch_metadata(Some(name), PATIENCE).unwrap();
    metadata.topics().first().unwrap().partitions().iter().map(|partition| partition.leader()).collect()
}

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 4, 1).unwrap();
    cluster
}

/// The records of a topic with four partitions, those of each in their order.
fn records(servers: &str, topic: &str) -> Vec<Record> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers.trim_start_matches("kafka://")).set("group.id", "test");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut places = rdkafka::TopicPartitionList::new();
    places.add_partition_range(topic, 0, 3);
    places.set_all_offsets(rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&places).unwrap();
    let marks = |partition| consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap();
    let all: i64 = (0..4).map(marks).map(|(low, high)| high - low).sum();
    let (mut records, begun) = (Vec::new(), Instant::now());
    while i64::try_from(records.len()).unwrap() < all {
        assert!(begun.elapsed() < PATIENCE, "{} of {all} arrived", records.len());
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => records.push(record(&message)),
            Some(Err(error)) => eprintln!("{error}"),
            None => {}
        }
    }
    records
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Record {
        key: message.key().map(text),
        headers: headers.map(|header| (header.key.to_owned(), text(header.value.unwrap()))).collect(),
        body: message.payload().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default(),
        partition: message.partition(),
        timestamp: message.timestamp().to_millis(),
    }
}

fn arrived(records: &[Record]) -> Vec<String> {
    rows_of(records.iter().map(|record| record.headers["id"].clone()))
}

fn url(servers: &str) -> String {
    format!("url = 'kafka://{}'", servers.trim_start_matches("kafka://"))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives() {
    let topic = Topic::new().await;
    let settings = format!(
        "{}\nkey = 'customer'\nheaders = 'tenant=a,trace=b'\noptions = 'kafka.timestamp=1700000000000'",
        topic.destination()
    );
    // One of several servers is enough.
    let servers = topic.url().replace("kafka://", &format!("kafka://127.0.0.1:{},", free_port()));
    let connection = format!("{servers}\noptions = {{ \"compression.type\" = \"zstd\", \"linger.ms\" = \"1\" }}");
    Shop::with(120, &connection, &settings).await.sends().await;
    let records = topic.records();
    assert_eq!(arrived(&records), ids(120));
    let mut places = HashMap::new();
    for record in &records {
        let told = ["content-type", "tenant", "trace"].map(|name| record.headers[name].as_str());
        assert_eq!((told, record.timestamp), (["application/json", "a", "b"], Some(1_700_000_000_000)));
        assert_eq!(format!("OrderPlaced:{}", record.body["id"]), row_of(&record.headers["id"]));
        assert_eq!(record.body["customer"].as_str(), record.key.as_deref());
        assert_eq!(places.entry(&record.key).or_insert(record.partition), &record.partition, "a key has one partition");
    }
}

/// A column that is NULL is a record without a value.
#[tokio::test(flavor = "multi_thread")]
async fn a_null_body_deletes_its_key() {
    let topic = Topic::with(&[("cleanup.policy", "compact")]).await;
    let database = with_neighbour().await;
    database.run("UPDATE order_placed SET customer = CASE WHEN id < 100 THEN '1' END; DELETE FROM neighbour").await;
    let settings = format!("{}\nkey = '{{id}}'\nbody_column = 'customer'", topic.destination());
    let said = beside_neighbour(&database, &topic.url(), &settings).run(&["flush", "-w", "0"]);
    assert_eq!((said.status, database.waiting().await), (0, 0), "{said:#?}");
    let mut deleted = topic.records();
    deleted.retain(|record| record.body.is_null());
    let mut keys: Vec<String> = deleted.into_iter().filter_map(|record| record.key).collect();
    keys.sort();
    assert_eq!(keys, ["100", "101"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_may_be_chosen() {
    let topic = Topic::new().await;
    let settings = format!("{}\noptions = 'kafka.partition=2'", topic.destination());
    Shop::with(200, &topic.url(), &settings).await.sends().await;
    let records = topic.records();
    assert_eq!(arrived(&records), ids(200));
    assert!(records.iter().all(|record| record.partition == 2 && record.key.is_none()));
    in_order(&records.iter().map(|record| record.headers["id"].clone()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_waited_for() {
    let topic = Topic::new().await;
    let connection = format!("{}\noptions = {{ \"queue.buffering.max.messages\" = \"10\" }}", topic.url());
    Shop::with(200, &connection, &topic.destination()).await.sends().await;
    assert_eq!(arrived(&topic.records()), ids(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_costs_nothing() {
    const ROWS: u32 = 12_000;
    let broker = tokio::task::spawn_blocking(|| Broker::start(Kind::Kafka, "")).await.unwrap();
    create(&broker.url(), "orders", &[]).await;
    Shop::with(ROWS, &url(&broker.url()), "").await.survives_death_of(&broker).await;
    let arrived = records(&broker.url(), "orders").into_iter().map(|record| record.headers["id"].clone());
    assert_eq!(distinct_rows_of(arrived), ids(ROWS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_waited_for() {
    let (topic, missing) = (Topic::new().await, Topic::missing().await);
    let connection = format!("{}\ntimeout = '5s'", topic.url());
    let shop = Shop::with(20, &connection, "").await;
    shop.database.run(&format!("ALTER TABLE order_placed ADD COLUMN destination TEXT DEFAULT '{}'", topic.name)).await;
    shop.database.run(&format!("UPDATE order_placed SET destination = '{}' WHERE id % 10 = 0", missing.name)).await;
    shop.defers(2, &format!("Kafka has no topic \"{}\"", missing.name)).await;
    assert_eq!(topic.records().len(), 18);
    missing.create(&[]).await;
    shop.database.run("UPDATE signalbus_hold SET due_at = 0 WHERE state = 'retry'").await;
    shop.sends().await;
    assert_eq!(arrived(&missing.records()), ["OrderPlaced:10", "OrderPlaced:20"]);
    let settings = format!("{}\noptions = 'kafka.partition=9'", topic.destination());
    Shop::small(&connection, &settings).await.defers(2, "or no such partition of it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_arrive_is_a_dead_letter() {
    let topic = Topic::with(&[("max.message.bytes", "2000")]).await;
    for name in ["a b", "a/b", ""] {
        let shop = Shop::small(&topic.url(), &format!("destination = '{name}'")).await;
        shop.buries(2, "is not a valid topic name").await;
    }
    for (option, words) in [("kafka.partition=-1", "cannot be \"-1\""), ("kafka.acks=0", "Kafka has no option \"kafka.acks\"")] {
        let settings = format!("{}\noptions = '{option}'", topic.destination());
        Shop::small(&topic.url(), &settings).await.buries(2, words).await;
    }
    // What travels together is too large, and one of it is alone.
    let settings = format!("{}\noptions = 'kafka.partition=0'", topic.destination());
    let shop = Shop::small(&topic.url(), &settings).await;
    shop.database.run("UPDATE order_placed SET payload = printf('%.5000c', 'x') WHERE id = 1").await;
    shop.buries(1, &format!("is larger than topic \"{}\" allows", topic.name)).await;
    assert_eq!(arrived(&topic.records()), ["OrderPlaced:2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_cannot_exist_cost_only_themselves() {
    let topic = Topic::with(&[("max.message.bytes", "20000")]).await;
    let good = format!("{}-good", topic.name);
    create(&topic.servers, &good, &[("max.message.bytes", "20000")]).await;
    let settings = format!("destination = '{}-{{customer}}'\nkey = '{{customer}}'", topic.name);
    let bad = [("printf('%.250c', 'x')", "at most 249"), ("'a' || char(10)", "is not a valid topic name")];
    let rows = bad_messages_cost_only_themselves(&topic.url(), &settings, &bad).await;
    assert_eq!(arrived(&records(&topic.servers, &good)), rows);
    // A key may have any character, but not any length.
    let settings = format!("{}\nkey = '{{customer}}'", topic.destination());
    let bad = [("printf('%.30000c', 'x')", "is larger than topic")];
    let rows = bad_messages_cost_only_themselves(&topic.url(), &settings, &bad).await;
    assert_eq!(arrived(&topic.records()), rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_allowed_is_waited_for() {
    let cluster = cluster();
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[denied]);
    let shop = Shop::small(&url(&cluster.bootstrap_servers()), "options = 'kafka.partition=0'").await;
    shop.defers(2, "does not allow this user to write to topic \"orders\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_nothing_is_charged() {
    let port = free_port();
    let connection = format!("url = 'kafka://ann:hunter2@127.0.0.1:{port}'\ntimeout = '3s'");
    let words = [&format!("Kafka at 127.0.0.1:{port}: "), "refused"];
    let shop = Shop::small(&connection, "").await;
    shop.cannot(69, &words).await;
    shop.stops().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_are_checked_before_anything_is_sent() {
    for (options, words) in [
        ("\"compression.tpye\" = \"zstd\"", "`options`: \"compression.tpye\": No such configuration property"),
        ("\"compression.type\" = \"best\"", "`options`: \"compression.type\": Invalid value"),
        ("acks = \"1\"", "`options`: \"acks\" cannot be changed"),
        ("\"request.required.acks\" = \"1\"", "cannot be changed: it is for the confirmation of messages"),
        ("\"enable.idempotence\" = \"false\"", "cannot be changed"),
        ("\"delivery.report.only.error\" = \"true\"", "cannot be changed"),
        ("dr_cb = \"1\"", "cannot be changed"),
        ("\"delivery.timeout.ms\" = \"1000\"", "cannot be changed: it is for `timeout`"),
        ("\"message.timeout.ms\" = \"1000\"", "cannot be changed"),
        ("\"security.protocol\" = \"plaintext\"", "cannot be changed: it is for `url`"),
        ("\"ssl.endpoint.identification.algorithm\" = \"none\"", "cannot be changed: it is for the identity of the server"),
        ("\"test.mock.num.brokers\" = \"1\"", "cannot be changed"),
        ("retries = \"0\"", "Kafka client: "),
        ("\"queuing.strategy\" = \"lifo\"", "Kafka client: "),
        ("\"max.in.flight\" = \"6\"", "Kafka client: "),
    ] {
        refused(&format!("url = 'kafka://127.0.0.1:1'\noptions = {{ {options} }}"), words).await;
    }
    for (url, words) in [
        ("kafka://ann:x@127.0.0.1?mechanism=ROT13", "Kafka client: "),
        ("kafka://127.0.0.1?mechanism=PLAIN", "need a user"),
        ("kafka://127.0.0.1,127.0.0.1:x", "server \"127.0.0.1:x\": invalid port number"),
        ("kafka://127.0.0.1/orders", "kafka:// takes no path"),
        ("kafka://127.0.0.1#x", "the URL has a fragment"),
    ] {
        refused(&format!("url = '{url}'"), words).await;
    }
    for file in ["ssl.ca.location", "ssl.key.location", "ssl.certificate.location"] {
        // Relative to the configuration's folder.
        refused(
            &format!("url = 'kafkas://127.0.0.1:1'\noptions = {{ \"{file}\" = 'nowhere.pem' }}"),
            "nowhere.pem: No such file",
        )
        .await;
    }
}

/// The check refuses the lines of a connection's section, with these words.
async fn refused(connection: &str, words: &str) {
    let said = Shop::small(connection, "").await.project.run(&["check"]);
    let told = format!("{}{}", said.stdout, said.stderr);
    assert!(said.status == 78 && told.contains(words), "{connection}: {words}: {said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_in_is_let_in_and_others_are_told_so() {
    let (server, topic) = (Guarded::shared().await, Topic::new().await);
    for (mechanism, user, words) in [
        ("", "carol", "Invalid username or password"),
        ("?mechanism=SCRAM-SHA-256", "ann", "invalid credentials with SASL mechanism SCRAM-SHA-256"),
        ("?mechanism=SCRAM-SHA-512", "bob", "invalid credentials with SASL mechanism SCRAM-SHA-512"),
    ] {
        let with = |password: &str| format!("url = 'kafka://{user}:{password}@127.0.0.1:{}{mechanism}'", server.login);
        Shop::small(&with("treasure"), &topic.destination()).await.sends().await;
        let begun = Instant::now();
        let told = format!("Kafka at 127.0.0.1:{} refuses the login: correct it in the URL: ", server.login);
        Shop::small(&with("hunter2"), &topic.destination()).await.cannot(78, &[&told, words]).await;
        assert!(begun.elapsed() < Duration::from_secs(9), "it is told at once");
    }
    assert_eq!(topic.records().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_travels_encrypted() {
    let (server, topic) = (Guarded::shared().await, Topic::new().await);
    let url = |password: &str| format!("url = 'kafkas://carol:{password}@127.0.0.1:{}'", server.secure);
    let connection = format!("{}\ntimeout = '5s'", url("treasure"));
    // The command may end in the midst of a handshake, and does so in peace.
    for _ in 0..3 {
        Shop::small(&connection, &topic.destination()).await.cannot(69, &["is unknown: set `ca`"]).await;
    }
    let ca = format!("ca = '{}/ca.pem'", server.certificates.path().display());
    Shop::small(&format!("{}\n{ca}", url("treasure")), &topic.destination()).await.sends().await;
    let named = connection.replace("127.0.0.1", "localhost").replace("timeout = '5s'", &ca);
    Shop::small(&named, &topic.destination()).await.cannot(69, &["is for another name than \"localhost\""]).await;
    let plain = format!("url = '{}'\ntimeout = '5s'", server.broker.url().replace("kafka:", "kafkas:"));
    Shop::small(&plain, &topic.destination()).await.cannot(69, &["does not seem to speak TLS"]).await;
    let words = ["refuses the login", "Invalid username or password"];
    Shop::small(&format!("{}\n{ca}", url("hunter2")), &topic.destination()).await.cannot(78, &words).await;
    assert_eq!(topic.records().len(), 2);
}

/// An IPv6 address is what it says.
#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_address_leads_to_its_server() {
    let topic = Topic::new().await;
    let port = topic.servers.rsplit_once(':').unwrap().1.parse().unwrap();
    let proxy = Proxy::at("[::1]:0", port);
    Shop::with(3, &format!("url = 'kafka://[::1]:{}'", proxy.port), &topic.destination()).await.sends().await;
}

/// A quota: a server answers what exceeds it, and then does not read for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_costs_only_time() {
    let topic = Topic::new().await;
    limit(&topic.servers, &topic.name, 40_000.0);
    let connection = format!("{}\noptions = {{ \"client.id\" = '{}' }}", topic.url(), topic.name);
    Shop::heavy(500, &connection, &topic.destination()).await.squeezes().await;
    let records = topic.records();
    assert_eq!(distinct_rows_of(records.iter().map(|record| record.headers["id"].clone())), ids(500));
    few_repetitions(records.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exceeded_quota_is_named() {
    let topic = Topic::new().await;
    limit(&topic.servers, &topic.name, 50.0);
    let connection = format!("{}\noptions = {{ \"client.id\" = '{}' }}\ntimeout = '6s'", topic.url(), topic.name);
    let said = Shop::heavy(50, &connection, &topic.destination()).await.flush();
    assert!(said.status == 69 && said.stderr.contains("a quota is exceeded: the server delays"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_are_named() {
    let brokers = tokio::task::spawn_blocking(|| {
        let first = Broker::start(Kind::Kafka, "default.replication.factor=2");
        let second = first.joining(2);
        (first, second)
    });
    let (first, second) = brokers.await.unwrap();
    let topic = Topic { servers: first.url(), name: "orders".into() };
    topic.create(&[("min.insync.replicas", "2")]).await;
    let connection = format!("{}\ntimeout = '8s'", topic.url());
    Shop::small(&connection, &topic.destination()).await.sends().await;
    second.kill();
    let told = "topic \"orders\" takes messages with 2 replicas in sync (`min.insync.replicas`): partition ";
    Shop::small(&connection, &topic.destination()).await.cannot(69, &[told, " has 1 of 2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_network_costs_only_time() {
    let proxy = Proxy::narrow(0, NARROW);
    let advertised = format!("advertised.listeners=PLAINTEXT://127.0.0.1:{}", proxy.port);
    let broker = tokio::task::spawn_blocking(move || Broker::start(Kind::Kafka, &advertised)).await.unwrap();
    proxy.lead(broker.port());
    create(&broker.url(), "orders", &[]).await;
    let connection = format!("url = 'kafka://127.0.0.1:{}'", proxy.port);
    Shop::heavy(500, &connection, "").await.squeezes().await;
    let records = records(&broker.url(), "orders");
    assert_eq!(distinct_rows_of(records.iter().map(|record| record.headers["id"].clone())), ids(500));
    few_repetitions(records.len());
}

/// Sets how many bytes a second a client may produce: `AlterClientQuotas`, version 0.
fn limit(servers: &str, client: &str, rate: f64) {
    use std::io::{Read as _, Write as _};
    let text = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    let one = 1_u32.to_be_bytes().to_vec();
    let header = [49_u16.to_be_bytes(), [0; 2], [0; 2], [0; 2]].concat();
    let entity = [one.clone(), text("client-id"), text(client)].concat();
    let change = [one.clone(), text("producer_byte_rate"), rate.to_be_bytes().to_vec(), vec![0]].concat();
    let request = [header, text("test"), one, entity, change, vec![0]].concat();
    let mut stream = std::net::TcpStream::connect(servers.trim_start_matches("kafka://")).unwrap();
    stream.write_all(&u32::try_from(request.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&request).unwrap();
    // Its length, its number, the time to wait, one entry, and its error.
    let mut answer = [0; 18];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[12..], [0, 0, 0, 1, 0, 0], "the quota is refused");
}

/// A server refuses the request that a message is in.
#[tokio::test(flavor = "multi_thread")]
async fn refused_messages_cost_only_themselves() {
    let stamp = "options = { 'kafka.timestamp' = '{customer}' }";
    for (property, value, settings, good, bad, words) in [
        ("cleanup.policy", "compact", "key = '{customer}'", "customer = id", "customer = NULL", "InvalidRecord"),
        ("max.message.bytes", "20000", "", "lane = lane", "payload = printf('%.30000c', 'x')", "is larger than topic"),
        (
            "message.timestamp.after.max.ms",
            "3600000",
            stamp,
            "customer = unixepoch() * 1000",
            "customer = (unixepoch() + 7200) * 1000",
            "InvalidTimestamp",
        ),
    ] {
        let topic = Topic::with(&[(property, value)]).await;
        let settings = format!("{}\n{settings}", topic.destination());
        let refusal = Refusal { settings: &settings, good, bad, words };
        let arrived = async || topic.records().into_iter().map(|record| record.headers["id"].clone()).collect();
        refusals_cost_only_themselves(&topic.url(), &refusal, &FEW_AND_MANY, arrived).await;
    }
}

/// The ids of the messages of a topic, those of each partition in their order.
pub(super) fn message_ids(servers: &str, topic: &str) -> Vec<String> {
    records(servers, topic).into_iter().map(|record| record.headers["id"].clone()).collect()
}
