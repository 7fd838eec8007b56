//! Kafka's protocol, with Tansu, which keeps what it has confirmed; and, for what a server refuses
//! now and then, with the cluster that librdkafka simulates over real sockets.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::broker::{Broker, Kind};
use crate::harness::bus::{Shop, certificates, ids, in_order};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A server that refuses what it is told to.
type Cluster = MockCluster<'static, DefaultProducerContext>;

struct Record {
    key: Option<String>,
    headers: HashMap<String, String>,
    body: serde_json::Value,
    partition: i32,
    timestamp: Option<i64>,
}

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 4, 1).unwrap();
    cluster
}

fn broker() -> Broker {
    let broker = Broker::start(Kind::Kafka, "");
    broker.administer(&["topic", "create", "orders", "--partitions", "4"]);
    broker
}

/// The records of topic `orders`, those of a partition in their order.
fn records(servers: &str, at_least: usize) -> Vec<Record> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers.trim_start_matches("kafka://"))
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest");
    config.set("fetch.wait.max.ms", "10").set("enable.partition.eof", "false").set("isolation.level", "read_uncommitted");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut places = rdkafka::TopicPartitionList::new();
    places.add_partition_range("orders", 0, 3);
    places.set_all_offsets(rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&places).unwrap();
    let (mut records, begun, mut quiet) = (Vec::new(), Instant::now(), 0);
    while records.len() < at_least || quiet < 3 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} of {at_least} arrived", records.len());
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => records.push(record(&message)),
            Some(Err(error)) => eprintln!("{error}"),
            None => quiet += 1,
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
        body: serde_json::from_slice(message.payload().unwrap()).unwrap(),
        partition: message.partition(),
        timestamp: message.timestamp().to_millis(),
    }
}

fn arrived(records: &[Record]) -> Vec<String> {
    let mut arrived: Vec<String> = records.iter().map(|record| record.headers["id"].clone()).collect();
    arrived.sort();
    arrived
}

fn url(servers: &str) -> String {
    format!("url = 'kafka://{}'", servers.trim_start_matches("kafka://"))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives() {
    let broker = broker();
    let settings = "key = 'customer'\nheaders = 'tenant=a,trace=b'\noptions = 'kafka.timestamp=1700000000000'";
    // One of several servers is enough.
    let servers = url(&broker.url()).replace("kafka://", &format!("kafka://127.0.0.1:{},", crate::harness::server::free_port()));
    let connection = format!("{servers}\noptions = {{ \"compression.type\" = \"gzip\", \"linger.ms\" = \"1\" }}");
    Shop::with(120, &connection, settings).await.sends().await;
    let records = records(&broker.url(), 120);
    assert_eq!(arrived(&records), ids(120));
    let mut places = HashMap::new();
    for record in &records {
        let told = ["content-type", "tenant", "trace"].map(|name| record.headers[name].as_str());
        assert_eq!((told, record.timestamp), (["application/json", "a", "b"], Some(1_700_000_000_000)));
        assert_eq!(format!("OrderPlaced:{}", record.body["id"]), record.headers["id"]);
        assert_eq!(record.body["customer"].as_str(), record.key.as_deref());
        assert_eq!(places.entry(&record.key).or_insert(record.partition), &record.partition, "a key has one partition");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_may_be_chosen() {
    let broker = broker();
    Shop::with(200, &url(&broker.url()), "options = 'kafka.partition=2'").await.sends().await;
    let records = records(&broker.url(), 200);
    assert!(records.iter().all(|record| record.partition == 2 && record.key.is_none()));
    in_order(&records.iter().map(|record| record.headers["id"].clone()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_waited_for() {
    let broker = broker();
    let connection = format!("{}\noptions = {{ \"queue.buffering.max.messages\" = \"10\" }}", url(&broker.url()));
    Shop::with(200, &connection, "").await.sends().await;
    assert_eq!(arrived(&records(&broker.url(), 200)), ids(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_costs_nothing() {
    let broker = broker();
    Shop::with(4_000, &url(&broker.url()), "").await.survives_death_of(&broker).await;
    let mut arrived = arrived(&records(&broker.url(), 4_000));
    arrived.dedup();
    assert_eq!(arrived, ids(4_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_waited_for() {
    let cluster = cluster();
    let connection = format!(
        "{}\noptions = {{ \"allow.auto.create.topics\" = \"false\" }}\ntimeout = '5s'",
        url(&cluster.bootstrap_servers())
    );
    cluster.topic_error("gone", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let shop = Shop::with(20, &connection, "").await;
    shop.database.run("ALTER TABLE order_placed ADD COLUMN destination TEXT DEFAULT 'orders'").await;
    shop.database.run("UPDATE order_placed SET destination = 'gone' WHERE id % 10 = 0").await;
    shop.defers(2, "Kafka has no topic \"gone\"").await;
    Shop::small(&url(&cluster.bootstrap_servers()), "options = 'kafka.partition=9'")
        .await
        .defers(2, "or no such partition of it")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_arrive_is_a_dead_letter() {
    let cluster = cluster();
    for topic in ["a b", "a/b", ""] {
        Shop::small(&url(&cluster.bootstrap_servers()), &format!("destination = '{topic}'"))
            .await
            .buries(2, "is not a valid topic name")
            .await;
    }
    Shop::small(&url(&cluster.bootstrap_servers()), "options = 'kafka.partition=-1'").await.buries(2, "cannot be \"-1\"").await;
    Shop::small(&url(&cluster.bootstrap_servers()), "options = 'kafka.acks=0'")
        .await
        .buries(2, "Kafka has no option \"kafka.acks\"")
        .await;
    // The first batch is too large, and of its messages the first.
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[too_large, too_large]);
    Shop::small(&url(&cluster.bootstrap_servers()), "options = 'kafka.partition=0'")
        .await
        .buries(1, "is larger than topic \"orders\" allows")
        .await;
    assert_eq!(records(&cluster.bootstrap_servers(), 1).len(), 1);
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
    let port = crate::harness::server::free_port();
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
    ] {
        let shop = Shop::small(&format!("url = 'kafka://127.0.0.1:1'\noptions = {{ {options} }}"), "").await;
        let said = shop.project.run(&["check"]);
        let told = format!("{}{}", said.stdout, said.stderr);
        assert!(said.status == 78 && told.contains(words), "{said:#?}");
    }
}

/// A server that speaks just enough to refuse a login; encrypted, if there is a folder with its
/// certificates.
fn refusing(certificates: Option<&Path>) -> u16 {
    let tls = certificates.map(|folder| {
        let chain = CertificateDer::pem_file_iter(folder.join("server.pem")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let tls = tls.clone();
            std::thread::spawn(move || match tls {
                Some(tls) => refuse(rustls::StreamOwned::new(rustls::ServerConnection::new(tls).unwrap(), stream)),
                None => refuse(stream),
            });
        }
    });
    port
}

fn refuse(mut stream: impl Read + Write) {
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut request).unwrap();
        // A request begins with its kind, its version and its number.
        let answer: Vec<u8> = match (request[1], request[3]) {
            // What is spoken: produce, metadata, handshake, versions, authenticate; version 0 of all but one.
            (18, version) => {
                let error = if version == 0 { 0 } else { 35 };
                let kinds = [(0, 7), (3, 4), (17, 1), (18, 0), (36, 0)];
                let head = [0, error, 0, 0, 0, kinds.len() as u8];
                head.into_iter().chain(kinds.iter().flat_map(|(kind, most)| [0, *kind, 0, 0, 0, *most])).collect()
            }
            (17, _) => [&[0, 0, 0, 0, 0, 1, 0, 5][..], b"PLAIN"].concat(),
            (36, _) => [&[0, 58, 0, 8][..], b"go away!", &[0, 0, 0, 0][..]].concat(),
            _ => return,
        };
        let length = u32::try_from(answer.len() + 4).unwrap();
        stream.write_all(&[&length.to_be_bytes()[..], &request[4..8], &answer].concat()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_in_is_let_in() {
    let mut broker = broker();
    for (mechanism, kind) in [("SCRAM-SHA-256", "scram256"), ("SCRAM-SHA-512", "scram512")] {
        broker.administer(&["user", "create", kind, "treasure", "--mechanism", kind]);
        broker.restart_with("--authentication");
        let with =
            |password: &str| format!("url = 'kafka://{kind}:{password}@127.0.0.1:{}?mechanism={mechanism}'", broker.port());
        Shop::small(&with("treasure"), "").await.sends().await;
        Shop::small(&with("hunter2"), "").await.cannot(78, &["refuses the login: correct it in the URL: "]).await;
        broker.restart_with("");
    }
    assert_eq!(records(&broker.url(), 4).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_in_is_told_so() {
    let port = refusing(None);
    let begun = Instant::now();
    let shop = Shop::small(&format!("url = 'kafka://ann:hunter2@127.0.0.1:{port}'"), "").await;
    shop.cannot(78, &[&format!("Kafka at 127.0.0.1:{port} refuses the login: correct it in the URL: "), "go away!"]).await;
    assert!(begun.elapsed() < Duration::from_secs(9), "it is told at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_travels_encrypted() {
    let folder = tempfile::TempDir::new().unwrap();
    certificates(folder.path());
    let port = refusing(Some(folder.path()));
    let url = format!("url = 'kafkas://ann:hunter2@127.0.0.1:{port}'");
    let connection = format!("{url}\ntimeout = '1s'");
    // The command may end in the midst of a handshake, and does so in peace.
    for _ in 0..6 {
        Shop::small(&connection, "").await.cannot(69, &["certificate verify failed"]).await;
    }
    let connection = format!("{url}\nca = '{}/ca.pem'", folder.path().display());
    Shop::small(&connection, "").await.cannot(78, &["refuses the login", "go away!"]).await;
}
