//! Rows from PostgreSQL to a bus that confirms each of them: the relay with the `publish` plugin,
//! compared in the same run with hand-written loops that use the same clients.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a measurement that cannot go on ends, and its figures are for people"
)]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "buses/loops.rs"]
mod loops;
mod report;

use std::time::{Duration, Instant};

use futures::future::join_all;
use harness::broker::{Broker, Kind};
use harness::command::Project;
use harness::database::{Database, System};
use harness::proxy::Proxy;
use harness::relay::section;
use harness::server::{Kind as ServerKind, Server};
use loops::{Sender, rabbitmq};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use report::Report;
use sqlx::{Connection as _, Row as _};

/// Rows per batch, for the relay and the loops.
const BATCH: usize = 500;
/// Workers of the relay, and number of loops in the shared case.
const WORKERS: usize = 4;
/// Ways to order the rows: their name, the settings, and the number of customers.
const ORDERS: [(&str, &str, u32); 4] = [
    ("in strict order", "order_by = ['id']\n", 1),
    ("in the order of 1 key", "order_by = ['id']\norder_key = ['customer']\n", 1),
    ("in the order of 10 keys", "order_by = ['id']\norder_key = ['customer']\n", 10),
    ("in the order of 1,000 keys", "order_by = ['id']\norder_key = ['customer']\n", 1000),
];

/// Where the bus is, and how long everything takes there, each way.
const PLACES: [(&str, Duration); 2] = [("", Duration::ZERO), (", 1 ms away", Duration::from_millis(1))];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let rows = std::env::var("SIGNALBUS_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(100_000);
    let runs = std::env::var("SIGNALBUS_BENCH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3);
    let mut report = Report::default();
    // One bus alone, by its name.
    let only = std::env::var("SIGNALBUS_BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only == name;
    runtime.block_on(async {
        for (name, kind) in BUSES.into_iter().filter(|(name, _)| wanted(name)) {
            let (mut rates, mut by_one, mut by_four) = (Vec::new(), Vec::new(), Vec::new());
            let mut ordered: [[Vec<f64>; ORDERS.len()]; PLACES.len()] = Default::default();
            for _ in 0..runs {
                for ((place, delay), ordered) in PLACES.into_iter().zip(&mut ordered) {
                    let (bus, url, _proxy) = Bus::start(kind, delay).await;
                    bus.prepare().await;
                    // (First, since a topic that is new answers late.)
                    let alone = by_hand(&bus, rows, 1).await;
                    let shared = by_hand(&bus, rows, WORKERS).await;
                    let relay = relay(&bus, &url, rows, "", None).await;
                    for ((_, order, customers), ratios) in ORDERS.iter().zip(ordered) {
                        ratios.push(self::relay(&bus, &url, rows, order, Some(*customers)).await / relay);
                    }
                    println!("{name}{place}: relay {relay:.0}, one loop {alone:.0}, {WORKERS} loops {shared:.0} rows/s");
                    if delay.is_zero() {
                        rates.push(relay);
                        by_one.push(relay / alone);
                        by_four.push(relay / shared);
                    }
                }
            }
            report.add(&format!("postgres to {name}: rows through `publish`"), rates, "rows/s", "");
            report.add(&format!("postgres to {name}: relay / a loop by hand"), by_one, "ratio", "at least 0.85");
            report.add(&format!("postgres to {name}: relay / {WORKERS} loops by hand"), by_four, "ratio", "at least 0.9");
            for ((place, _), ordered) in PLACES.into_iter().zip(ordered) {
                for ((way, ..), ratios) in ORDERS.iter().zip(ordered) {
                    report.add(&format!("postgres to {name}{place}: {way} / without order"), ratios, "ratio", "at least 0.7");
                }
            }
        }
        if !wanted("http") {
            return;
        }
        let mut rates = Vec::new();
        for _ in 0..runs {
            rates.push(webhooks(20_000).await);
        }
        report.add("postgres to HTTP, answers after 10 ms: `webhook`", rates, "requests/s", "at least 2000");
    });
    report.write();
}

/// The buses: their name, and the broker of each but the inbox, which is another database.
const BUSES: [(&str, Option<Kind>); 6] = [
    ("rabbitmq", Some(Kind::Rabbitmq)),
    ("nats jetstream", Some(Kind::Nats)),
    ("kafka", Some(Kind::Kafka)),
    ("redis", Some(Kind::Redis)),
    ("mqtt", Some(Kind::Mosquitto)),
    ("inbox", None),
];

enum Bus {
    Broker(Kind, Broker),
    Inbox(Database),
}

impl Bus {
    /// Starts a bus that is so far away, and returns its URL, with the proxy that it leads through.
    async fn start(kind: Option<Kind>, delay: Duration) -> (Self, String, Option<Proxy>) {
        let proxy = (!delay.is_zero()).then(|| Proxy::distant(0, delay));
        let bus = match kind {
            Some(kind) => {
                let more = match (kind, &proxy) {
                    // (By default its last acknowledgements wait for the client's kernel, 40 ms for each batch.)
                    (Kind::Mosquitto, _) => "set_tcp_nodelay true".to_owned(),
                    (Kind::Kafka, Some(proxy)) => format!("advertised.listeners=PLAINTEXT://127.0.0.1:{}", proxy.port),
                    _ => String::new(),
                };
                Self::Broker(kind, tokio::task::block_in_place(|| Broker::start(kind, &more)))
            }
            None => {
                let server = tokio::task::block_in_place(|| Server::shared(ServerKind::Postgres));
                Self::Inbox(Database::without_outbox(System::Postgres, server).await)
            }
        };
        let (url, port) = match &bus {
            Self::Broker(_, broker) => (broker.url(), broker.port()),
            Self::Inbox(database) => (database.url.clone(), Server::shared(ServerKind::Postgres).port()),
        };
        let Some(proxy) = proxy else { return (bus, url, None) };
        proxy.lead(port);
        (bus, url.replace(&format!(":{port}"), &format!(":{}", proxy.port)), Some(proxy))
    }

    /// Creates what receives the messages: a queue, a stream, a topic or a table.
    async fn prepare(&self) {
        match self {
            Self::Broker(Kind::Rabbitmq, broker) => {
                let channel = rabbitmq(broker).await;
                let durable = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
                channel.queue_declare("orders".into(), durable, Default::default()).await.unwrap();
            }
            Self::Broker(Kind::Nats, broker) => {
                let client = async_nats::connect(broker.url()).await.unwrap();
                let config = async_nats::jetstream::stream::Config {
                    name: "orders".into(),
                    subjects: vec!["orders".into()],
                    ..Default::default()
                };
                async_nats::jetstream::new(client).create_stream(config).await.unwrap();
            }
            Self::Broker(Kind::Kafka, broker) => {
                let topic = NewTopic::new("orders", 4, TopicReplication::Fixed(1));
                let admin: AdminClient<_> = loops::kafka_servers(broker).create().unwrap();
                admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
            }
            Self::Broker(..) => {}
            Self::Inbox(database) => {
                let table = "CREATE TABLE orders (id text PRIMARY KEY, key text, content_type text, headers jsonb, body bytea)";
                database.run(table).await;
            }
        }
    }
}

async fn relay(bus: &Bus, url: &str, rows: u32, order: &str, customers: Option<u32>) -> f64 {
    let database = Database::postgres().await;
    let (destination, key) = if matches!(bus, Bus::Broker(Kind::Rabbitmq, _)) { ("", "orders") } else { ("orders", "") };
    let more = format!(
        "{order}[signals.OrderPlaced.settings]\nconnection = \"bus\"\ndestination = {destination:?}\nkey = {key:?}\n\
         [signals.OrderPlaced.grants]\nconnections = [\"bus\"]\n[connections.bus]\nurl = {:?}\n",
        url
    );
    let rate = drained(&database, "signalbus_publish", &more, rows, customers).await;
    database.discard().await;
    rate
}

/// Requests per second of the `webhook` plugin, with responses after 10 ms.
async fn webhooks(rows: u32) -> f64 {
    let handler = || async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        axum::http::StatusCode::NO_CONTENT
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handler)).await });
    let database = Database::postgres().await;
    let more = format!(
        "[signals.OrderPlaced.settings]\nurl = \"{origin}/hooks\"\n[signals.OrderPlaced.secrets]\n\
         signing_key = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n[signals.OrderPlaced.grants]\nhttp = [{origin:?}]\n"
    );
    let rate = drained(&database, "signalbus_webhook", &more, rows, None).await;
    server.abort();
    database.discard().await;
    rate
}

/// Fills the table, and returns the rows per second of the relay, without its start.
async fn drained(database: &Database, plugin: &str, more: &str, rows: u32, customers: Option<u32>) -> f64 {
    let sections = section("OrderPlaced", &harness::guest(plugin), more);
    let project = Project::new(database.folder(), &format!("[database]\nurl = {:?}\n{sections}", database.url));
    let mut took = Vec::new();
    // The start: a process, the connections (a client of Kafka asks for its id after half a second), and one row.
    for rows in [1, rows] {
        database.run("DROP TABLE IF EXISTS order_placed").await;
        database.orders(rows).await;
        if let Some(customers) = customers {
            database.run(&format!("UPDATE order_placed SET customer = 'c' || id % {customers}")).await;
        }
        database.run("VACUUM ANALYZE order_placed").await;
        let begun = Instant::now();
        let output = tokio::task::block_in_place(|| project.command(&["flushmany"]).output().unwrap());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        took.push(begun.elapsed());
    }
    f64::from(rows - 1) / (took[1] - took[0]).as_secs_f64()
}

/// Rows per second of this many loops, each with its own database connection.
async fn by_hand(bus: &Bus, rows: u32, loops: usize) -> f64 {
    let database = Database::postgres().await;
    database.orders(rows).await;
    let sender = Sender::connect(bus, loops).await;
    let begun = Instant::now();
    join_all((0..loops).map(|number| work(&database, &sender, number))).await;
    let rate = f64::from(rows) / begun.elapsed().as_secs_f64();
    database.discard().await;
    rate
}

async fn work(database: &Database, sender: &Sender, number: usize) {
    let mut connection = database.postgres_connection().await;
    // The ids are new: a bus that discards what it has stored would have less to do.
    let prefix = fastrand::u32(..);
    loop {
        let mut transaction = connection.begin().await.unwrap();
        let query = format!("SELECT id, customer, payload FROM order_placed ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED");
        let rows = sqlx::query(sqlx::AssertSqlSafe(query)).fetch_all(&mut *transaction).await.unwrap();
        if rows.is_empty() {
            return;
        }
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let bodies = rows.iter().map(|row| {
            let (id, customer, payload): (i64, &str, &str) = (row.get(0), row.get(1), row.get(2));
            serde_json::to_vec(&serde_json::json!({ "id": id, "customer": customer, "payload": payload })).unwrap()
        });
        sender.send(number, ids.iter().map(|id| format!("OrderPlaced:{prefix:08x}{id}")).zip(bodies).collect()).await;
        sqlx::query("DELETE FROM order_placed WHERE id = ANY($1)").bind(ids).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }
}
