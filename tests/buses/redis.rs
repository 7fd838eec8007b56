//! Redis streams, with a real server: what arrives, what is refused, and what an outage costs.

use std::collections::HashMap;

use crate::harness::broker::{Broker, Kind};
use crate::harness::bus::{
    NARROW, Shop, bad_messages_cost_only_themselves, certificates, distinct_rows_of, few_repetitions, ids, in_order, row_of,
    rows_of,
};
use crate::harness::proxy::Proxy;
use crate::harness::refusal::{FEW_AND_MANY, Refusal, refusals_cost_only_themselves};
use redis::streams::StreamRangeReply;
use redis::{AsyncTypedCommands as _, FromRedisValue as _};

type Entry = HashMap<String, String>;

async fn connection(broker: &Broker) -> redis::aio::MultiplexedConnection {
    broker.redis().await
}

/// Returns all entries of the stream `orders`.
pub(super) async fn entries(broker: &Broker) -> Vec<Entry> {
    let reply: StreamRangeReply = connection(broker).await.xrange_all("orders").await.unwrap();
    let text = |value: &redis::Value| String::from_redis_value_ref(value).unwrap();
    let entry = |entry: &redis::streams::StreamId| entry.map.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    reply.ids.iter().map(entry).collect()
}

fn url(broker: &Broker) -> String {
    format!("url = {:?}", broker.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives() {
    let broker = Broker::shared(Kind::Redis);
    let shop = Shop::with(120, &url(broker), "key = 'customer'\nheaders = 'tenant=a,trace=b'").await;
    shop.sends().await;
    let entries = entries(broker).await;
    let arrived: Vec<String> = entries.iter().map(|entry| entry["id"].clone()).collect();
    in_order(&arrived);
    assert_eq!(rows_of(arrived), ids(120));
    for entry in &entries {
        let told = ["content_type", "header.tenant", "header.trace"].map(|name| entry[name].as_str());
        assert_eq!((entry.len(), told), (6, ["application/json", "a", "b"]));
        let body: serde_json::Value = serde_json::from_str(&entry["body"]).unwrap();
        assert_eq!(
            (format!("OrderPlaced:{}", body["id"]), &body["customer"]),
            (row_of(&entry["id"]).to_owned(), &entry["key"].as_str().into())
        );
    }
}

/// What Redis would answer by closing the connection is told before it reaches the client.
#[tokio::test(flavor = "multi_thread")]
async fn values_and_entries_that_are_too_large_cost_only_themselves() {
    let broker = Broker::start(Kind::Redis, "proto-max-bulk-len 1mb\nclient-query-buffer-limit 2mb");
    let bad = [
        ("printf('%.1050000c', 'x')", "takes values of at most 1048576 bytes"),
        ("printf('%.1040000c', 'x')", "takes entries of at most 2097152 bytes"),
    ];
    let settings = "destination = 'orders'\nkey = '{customer}'\nheaders = { x = '{customer}' }";
    let rows = bad_messages_cost_only_themselves(&url(&broker), settings, &bad).await;
    assert_eq!(rows_of(entries(&broker).await.iter().map(|entry| entry["id"].clone())), rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_can_be_trimmed() {
    let broker = Broker::start(Kind::Redis, "stream-node-max-entries 10");
    let shop = Shop::with(500, &url(&broker), "options = 'redis.maxlen=20,redis.field=payload'").await;
    shop.granting("options = ['redis.maxlen', 'redis.field']").sends().await;
    let entries = entries(&broker).await;
    assert!((20..60).contains(&entries.len()), "{}", entries.len());
    assert!(entries[0].contains_key("payload") && !entries[0].contains_key("body"), "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_costs_nothing() {
    let broker = Broker::start(Kind::Redis, "");
    let shop = Shop::with(12_000, &url(&broker), "").await;
    shop.survives_death_of(&broker).await;
    let arrived: Vec<String> = entries(&broker).await.into_iter().map(|entry| entry["id"].clone()).collect();
    let sent = arrived.len();
    assert_eq!(distinct_rows_of(arrived), ids(12_000));
    // No more than the batches in flight come twice.
    assert!(sent <= 12_000 + 100, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn undeliverable_messages_become_dead_letters() {
    let broker = Broker::start(Kind::Redis, "proto-max-bulk-len 1mb");
    let shop = Shop::small(&url(&broker), "").await;
    shop.database.run("UPDATE order_placed SET payload = printf('%.2000000c', 'x') WHERE id = 1").await;
    shop.buries(1, "Redis takes values of at most 1048576 bytes, not 2000").await;
    assert_eq!(entries(&broker).await.len(), 1);
    connection(&broker).await.set("text", "x").await.unwrap();
    Shop::small(&url(&broker), "destination = 'text'").await.buries(2, "key \"text\" is not a stream").await;
    Shop::small(&url(&broker), "destination = ''").await.buries(2, "`destination` is empty").await;
    Shop::small(&url(&broker), "options = 'redis.maxlen=many'")
        .await
        .granting("options = ['redis.maxlen']")
        .buries(2, "option \"redis.maxlen\" cannot be \"many\"")
        .await;
    Shop::small(&url(&broker), "options = 'redis.nomkstream=1'").await.buries(2, "no option \"redis.nomkstream\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_writes_is_an_outage() {
    let broker = Broker::start(Kind::Redis, "maxmemory 100kb");
    Shop::small(&url(&broker), "").await.cannot(69, &["connection \"bus\": Redis at 127.0.0.1:", "OOM"]).await;
    let follower = Broker::start(Kind::Redis, "replicaof 127.0.0.1 1\nreplica-serve-stale-data yes");
    Shop::small(&url(&follower), "").await.cannot(69, &["Redis at 127.0.0.1:", "read only replica"]).await;
    let port = crate::harness::server::free_port();
    let connection = format!("url = 'redis://ann:hunter2@127.0.0.1:{port}'");
    Shop::small(&connection, "").await.cannot(69, &[&format!("Redis at 127.0.0.1:{port}: "), "refused"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_reported() {
    let broker = Broker::start(Kind::Redis, "requirepass treasure\nuser ann on >treasure ~allowed* +@all");
    let port = broker.port();
    for login in ["ann:hunter2@", "", ":hunter2@"] {
        let connection = format!("url = 'redis://{login}127.0.0.1:{port}'");
        let words = ["connection \"bus\": Redis at 127.0.0.1:", "refuses the login: correct it in the URL"];
        Shop::small(&connection, "").await.cannot(78, &words).await;
    }
    let connection = format!("url = 'redis://ann:treasure@127.0.0.1:{port}'");
    Shop::small(&connection, "").await.defers(2, "does not allow this user to add to stream \"orders\"").await;
    Shop::small(&connection, "destination = 'allowed'").await.sends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_over_tls_with_a_password() {
    let folder = tempfile::TempDir::new().unwrap();
    certificates(folder.path());
    let (path, port) = (folder.path().display(), crate::harness::server::free_port());
    let tls = format!("tls-port {port}\ntls-cert-file {path}/server.pem\ntls-key-file {path}/server.key\ntls-auth-clients no");
    let _broker = Broker::start(Kind::Redis, &format!("{tls}\nuser ann on >treasure ~* +@all"));
    let url = format!("url = 'rediss://ann:treasure@127.0.0.1:{port}'");
    Shop::small(&url, "").await.cannot(69, &["the authority of the certificate of 127.0.0.1:", "is unknown: set `ca`"]).await;
    let named = format!("{}\nca = '{path}/ca.pem'", url.replace("127.0.0.1", "localhost"));
    Shop::small(&named, "").await.cannot(69, &["is for another name than \"localhost\""]).await;
    let plain = Broker::shared(Kind::Redis).url().replace("redis:", "rediss:");
    Shop::small(&format!("url = '{plain}'"), "").await.cannot(69, &["does not answer a TLS handshake"]).await;
    Shop::small(&format!("{url}\nca = '{path}/ca.pem'"), "").await.sends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_costs_nothing() {
    let broker = Broker::shared(Kind::Redis);
    let proxy = Proxy::to(broker.port());
    let connection = format!("url = 'redis://127.0.0.1:{}'\ntimeout = '1s'", proxy.port);
    Shop::with(6000, &connection, "destination = 'cable'").await.survives_silence_of(&proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_two_signals_is_not_noticed() {
    let broker = Broker::start(Kind::Redis, "");
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
    let broker = Broker::shared(Kind::Redis);
    let proxy = Proxy::at("[::1]:0", broker.port());
    Shop::with(3, &format!("url = 'redis://[::1]:{}'", proxy.port), "destination = 'six'").await.sends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_network_costs_only_time() {
    let broker = Broker::start(Kind::Redis, "");
    let proxy = Proxy::narrow(broker.port(), NARROW);
    Shop::heavy(100, &format!("url = 'redis://127.0.0.1:{}'", proxy.port), "").await.squeezes().await;
    let arrived: Vec<String> = entries(&broker).await.into_iter().map(|entry| entry["id"].clone()).collect();
    few_repetitions(arrived.len());
    assert_eq!(distinct_rows_of(arrived), ids(500));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_messages_cost_only_themselves() {
    let broker = Broker::start(Kind::Redis, "proto-max-bulk-len 1mb");
    connection(&broker).await.set("text", "x").await.unwrap();
    let arrived = async || entries(&broker).await.into_iter().map(|entry| entry["id"].clone()).collect();
    for (settings, good, bad, words) in [
        ("destination = '{customer}'", "customer = 'orders'", "customer = 'text'", "key \"text\" is not a stream"),
        ("destination = 'orders'", "lane = lane", "payload = printf('%.1100000c', 'x')", "values of at most 1048576 bytes"),
    ] {
        let refusal = Refusal { settings, good, bad, words };
        refusals_cost_only_themselves(&url(&broker), &refusal, &FEW_AND_MANY, arrived).await;
    }
}

/// In any combination of timeouts that the check lets pass, a bus that hangs is an outage.
#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_hangs_is_not_the_plugins_failure() {
    let proxy = Proxy::to(Broker::shared(Kind::Redis).port());
    proxy.cut();
    let connection = format!("url = 'redis://127.0.0.1:{}'\ntimeout = '1s'", proxy.port);
    let shop = Shop::small(&connection, "").await;
    shop.set("timeout = '60s'", "timeout = '1250ms'");
    shop.cannot(69, &["connection \"bus\": no connection within 1.0s"]).await;
    shop.set("timeout = '1250ms'", "timeout = '1s'");
    let words = "`signals.OrderPlaced.timeout` (1s) must be at least a quarter longer than `connections.bus.timeout` (1s)";
    shop.cannot(78, &[words]).await;
}
