//! NATS with JetStream, real servers of it: what arrives, what is refused, and what an outage costs.

use std::time::Duration;

use crate::harness::broker::{Broker, Kind};
use crate::harness::bus::{
    NARROW, Shop, bad_messages_cost_only_themselves, certificates, distinct_rows_of, equal_commits, few_repetitions, ids,
    in_order, row_of, rows_of,
};
use crate::harness::proxy::Proxy;
use crate::harness::refusal::{FEW_AND_MANY, Refusal, refusals_cost_only_themselves, refused_by};
use async_nats::jetstream::consumer::pull::Config as Pull;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::jetstream::{self, Message};
use futures::StreamExt as _;

/// A stream for the subjects `orders` and `orders.*`.
pub(super) async fn stream(broker: &Broker, more: Config) -> jetstream::stream::Stream {
    let client = async_nats::connect(broker.url()).await.unwrap();
    let config = Config { name: "ORDERS".into(), subjects: vec!["orders".into(), "orders.*".into()], ..more };
    jetstream::new(client).create_stream(config).await.unwrap()
}

pub(super) async fn messages(stream: &jetstream::stream::Stream) -> Vec<Message> {
    let count = usize::try_from(stream.get_info().await.unwrap().state.messages).unwrap();
    let consumer = stream.create_consumer(Pull { max_ack_pending: -1, ..Pull::default() }).await.unwrap();
    let all = consumer.batch().max_messages(count).expires(Duration::from_secs(20)).messages().await.unwrap();
    all.take(count).map(Result::unwrap).collect().await
}

pub(super) fn header<'a>(message: &'a Message, name: &str) -> &'a str {
    message.headers.as_ref().and_then(|headers| headers.get(name)).map_or("", |value| value.as_str())
}

fn url(broker: &Broker) -> String {
    format!("url = {:?}", broker.url())
}

/// Makes two tests of what is tried with a server: one with the system's, one with a current one.
macro_rules! with_each_server {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            use crate::harness::broker::Kind;
            #[tokio::test(flavor = "multi_thread")]
            async fn debian() { super::$name(Kind::Nats).await }
            #[tokio::test(flavor = "multi_thread")]
            async fn current() { super::$name(Kind::CurrentNats).await }
        }
    )* };
}

with_each_server!(
    equal_commits_arrive_each,
    everything_arrives,
    a_killed_server_costs_nothing,
    what_a_stream_does_not_take_waits,
    what_can_never_arrive_is_a_dead_letter,
    bad_messages_cost_nobody_else,
    who_may_not_in_is_told_so,
    it_travels_encrypted_with_a_token,
    a_silent_network_costs_nothing,
    a_restart_between_two_signals_is_not_noticed,
);

async fn everything_arrives(server: Kind) {
    let broker = Broker::start(server, "");
    let stream = stream(&broker, Config::default()).await;
    let settings = "key = 'customer'\nheaders = 'tenant=a,trace=b'\noptions = 'nats.expected-stream=ORDERS,amqp.priority=1'";
    let shop = Shop::with(120, &url(&broker), settings).await;
    shop.sends().await;
    let messages = messages(&stream).await;
    let arrived: Vec<String> = messages.iter().map(|message| header(message, "Nats-Msg-Id").to_owned()).collect();
    in_order(&arrived);
    assert_eq!(rows_of(arrived), ids(120));
    for message in &messages {
        let told = ["Content-Type", "tenant", "trace"].map(|name| header(message, name));
        assert_eq!((message.subject.as_str(), told), ("orders", ["application/json", "a", "b"]));
        let body: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(format!("OrderPlaced:{}", body["id"]), row_of(header(message, "Nats-Msg-Id")));
        assert_eq!(body["payload"].as_str().unwrap().len(), 200);
    }
}

async fn equal_commits_arrive_each(server: Kind) {
    let broker = Broker::start(server, "");
    let stream = stream(&broker, Config::default()).await;
    equal_commits(300, &url(&broker), "destination = 'orders'").await;
    assert_eq!(messages(&stream).await.len(), 300);
}

async fn a_killed_server_costs_nothing(server: Kind) {
    let broker = Broker::start(server, "");
    stream(&broker, Config::default()).await;
    let shop = Shop::with(12_000, &url(&broker), "").await;
    shop.survives_death_of(&broker).await;
    let client = async_nats::connect(broker.url()).await.unwrap();
    let stream = jetstream::new(client).get_stream("ORDERS").await.unwrap();
    let messages = messages(&stream).await;
    // What was sent twice is stored once.
    assert_eq!(rows_of(messages.iter().map(|message| header(message, "Nats-Msg-Id").to_owned())), ids(12_000));
}

async fn what_a_stream_does_not_take_waits(server: Kind) {
    let broker = Broker::start(server, "");
    Shop::small(&url(&broker), "").await.defers(2, "no stream has subject \"orders\"; create one").await;
    let full = Config { max_messages: 1, discard: DiscardPolicy::New, ..Config::default() };
    stream(&broker, full).await;
    Shop::small(&url(&broker), "").await.defers(1, "the stream or its disk is full").await;
    Shop::small(&url(&broker), "options = 'nats.expected-stream=OTHER'").await.defers(2, "expected stream does not match").await;
}

async fn what_can_never_arrive_is_a_dead_letter(server: Kind) {
    let broker = Broker::start(server, "max_payload: 2000");
    let stream = stream(&broker, Config::default()).await;
    let shop = Shop::small(&url(&broker), "").await;
    shop.database.run("UPDATE order_placed SET payload = printf('%.5000c', 'x') WHERE id = 1").await;
    shop.buries(1, "NATS takes messages of at most 2000 bytes").await;
    assert_eq!(messages(&stream).await.len(), 1);
    for subject in ["orders.*", "orders.>", "a b", "orders..x", ""] {
        Shop::small(&url(&broker), &format!("destination = '{subject}'")).await.buries(2, "is not a subject").await;
    }
    Shop::small(&url(&broker), "options = 'nats.mandatory=1'").await.buries(2, "NATS has no option \"nats.mandatory\"").await;
    Shop::small(&url(&broker), "headers = 'a b=1'").await.buries(2, "header \"a b\"").await;
}

/// Also of messages that the server answers by closing the connection: it has a shorter control line than
/// the default.
async fn bad_messages_cost_nobody_else(server: Kind) {
    let broker = Broker::start(server, "max_control_line: 1024\nmax_payload: 20000\ndebug: true");
    let stream = stream(&broker, Config::default()).await;
    let bad = [
        ("'a b'", "is not a subject"),
        ("'a' || char(9)", "is not a subject"),
        ("'a' || char(0)", "is not a subject"),
        ("printf('%.5000c', 'x')", "has 5007 bytes, but NATS takes at most 4000"),
        ("printf('%.2000c', 'x')", "broke 3 connections of its own"),
    ];
    let rows = bad_messages_cost_only_themselves(&url(&broker), "destination = 'orders.{customer}'", &bad).await;
    let arrived = messages(&stream).await;
    assert_eq!(rows_of(arrived.iter().map(|message| header(message, "Nats-Msg-Id").to_owned())), rows);
    assert!(broker.log().matches("Client connection created").count() < 50, "{}", broker.log());
    let bad = [("'a' || char(13)", "header \"x\""), ("printf('%.30000c', 'x')", "takes messages of at most 20000 bytes")];
    let settings = "destination = 'orders'\nheaders = { x = '{customer}' }";
    bad_messages_cost_only_themselves(&url(&broker), settings, &bad).await;
}

async fn who_may_not_in_is_told_so(server: Kind) {
    let broker = Broker::start(
        server,
        "authorization { users: [{ user: ann, password: treasure, permissions: { publish: { deny: \"orders.secret\" } } }] }",
    );
    let port = broker.port();
    for login in ["ann:hunter2@", "", "hunter2@"] {
        let connection = format!("url = 'nats://{login}127.0.0.1:{port}'");
        let words = ["connection \"bus\": NATS at 127.0.0.1:", "refuses the login: correct it in the URL"];
        Shop::small(&connection, "").await.cannot(78, &words).await;
    }
    let connection = format!("url = 'nats://127.0.0.1:{port}?credentials=/nowhere'");
    Shop::small(&connection, "").await.cannot(78, &["credentials /nowhere: No such file"]).await;
    let connection = format!("url = 'nats://ann:treasure@127.0.0.1:{port}'");
    let words = "does not allow this user to publish to subject \"orders.secret\"";
    Shop::small(&connection, "destination = 'orders.secret'").await.defers(2, words).await;
}

async fn it_travels_encrypted_with_a_token(server: Kind) {
    let folder = tempfile::TempDir::new().unwrap();
    certificates(folder.path());
    let path = folder.path().display();
    let tls = format!(
        "tls {{ cert_file: \"{path}/server.pem\", key_file: \"{path}/server.key\" }}\nauthorization {{ token: treasure }}"
    );
    let broker = Broker::start(server, &tls);
    let port = broker.port();
    // One of several servers is enough.
    let nobody = crate::harness::server::free_port();
    let url = format!("url = 'tls://treasure@127.0.0.1:{nobody},127.0.0.1:{port}'");
    Shop::small(&format!("url = 'tls://treasure@127.0.0.1:{port}'"), "").await.cannot(69, &["certificate"]).await;
    let connection = format!("{url}\nca = '{path}/ca.pem'");
    Shop::small(&connection, "").await.defers(2, "no stream has subject").await;
}

async fn a_silent_network_costs_nothing(server: Kind) {
    let broker = Broker::start(server, "");
    stream(&broker, Config::default()).await;
    let proxy = Proxy::to(broker.port());
    let connection = format!("url = 'nats://127.0.0.1:{}'\ntimeout = '1s'", proxy.port);
    Shop::with(6000, &connection, "").await.survives_silence_of(&proxy).await;
}

async fn a_restart_between_two_signals_is_not_noticed(server: Kind) {
    let broker = Broker::start(server, "");
    stream(&broker, Config::default()).await;
    let shop = Shop::small(&url(&broker), "").await;
    shop.does_not_notice(|| {
        broker.kill();
        broker.up();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_nothing_is_charged() {
    let port = crate::harness::server::free_port();
    let connection = format!("url = 'nats://ann:hunter2@127.0.0.1:{port}'");
    let shop = Shop::small(&connection, "").await;
    shop.cannot(69, &[&format!("NATS at 127.0.0.1:{port}: ")]).await;
    shop.stops().await;
}

/// An IPv6 address is what it says.
#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_address_leads_to_its_server() {
    let broker = Broker::start(Kind::Nats, "");
    let _stream = stream(&broker, Config::default()).await;
    let proxy = Proxy::at("[::1]:0", broker.port());
    Shop::with(3, &format!("url = 'nats://[::1]:{}'", proxy.port), "").await.sends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_network_costs_only_time() {
    let broker = Broker::start(Kind::CurrentNats, "");
    // It would not store what comes twice.
    let stream = stream(&broker, Config { duplicate_window: Duration::from_millis(100), ..Config::default() }).await;
    let proxy = Proxy::narrow(broker.port(), NARROW);
    Shop::heavy(100, &format!("url = 'nats://127.0.0.1:{}'", proxy.port), "").await.squeezes().await;
    let messages = messages(&stream).await;
    assert_eq!(distinct_rows_of(messages.iter().map(|message| header(message, "Nats-Msg-Id").to_owned())), ids(500));
    few_repetitions(messages.len());
}

/// A condition that a message brings along is its own: nobody else gets its receipt.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_messages_cost_only_themselves() {
    let broker = Broker::start(Kind::CurrentNats, "");
    let stream = stream(&broker, Config::default()).await;
    let arrived = async || messages(&stream).await.iter().map(|message| header(message, "Nats-Msg-Id").to_owned()).collect();
    let settings = format!(
        "connection = 'bus'\ndestination = 'orders'\nheaders = {{ 'Nats-Expected-Last-Msg-Id' = '{{customer}}' }}\n\
         [connections.bus]\n{}\n",
        url(&broker)
    );
    let grants = "connections = [{ name = 'bus', options = ['Nats-Expected-*'] }]";
    let (good, bad, words) = ("customer = ''", "customer = 'nobody'", "wrong last msg ID");
    let refusal = Refusal { settings: &settings, good, bad, words };
    refused_by(&crate::harness::guest("signalbus_publish"), grants, &refusal, &[6], arrived).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_messages_cost_only_themselves() {
    let broker = Broker::start(Kind::CurrentNats, "max_payload: 20000");
    let stream = stream(&broker, Config { max_message_size: 10_000, ..Config::default() }).await;
    let arrived = async || messages(&stream).await.iter().map(|message| header(message, "Nats-Msg-Id").to_owned()).collect();
    let expected = "destination = 'orders'\noptions = { 'nats.expected-stream' = '{customer}' }";
    for (settings, good, bad, words) in [
        ("destination = 'orders'", "lane = lane", "payload = printf('%.30000c', 'x')", "at most 20000 bytes"),
        ("destination = 'orders'", "lane = lane", "payload = printf('%.15000c', 'x')", "message size exceeds maximum allowed"),
        ("destination = 'orders'\nheaders = { x = '{customer}' }", "lane = lane", "customer = 'a' || char(13)", "header \"x\""),
        ("destination = '{customer}'", "customer = 'orders'", "customer = 'nowhere'", "no stream has subject \"nowhere\""),
        (expected, "customer = 'ORDERS'", "customer = 'OTHER'", "expected stream does not match"),
    ] {
        let refusal = Refusal { settings, good, bad, words };
        refusals_cost_only_themselves(&url(&broker), &refusal, &FEW_AND_MANY, arrived).await;
    }
}
