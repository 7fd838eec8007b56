//! Redis Cluster, with real servers: what arrives, and what it costs when nodes die and slots move.

use crate::harness::broker::{Broker, Kind};
use crate::harness::bus::{Shop, certificates, distinct_rows_of, ids, rows_of};
use crate::harness::redis::{Cluster, ask, now};
use crate::harness::refusal::{Refusal, refusals_cost_only_themselves};
use crate::harness::server::free_port;

const MASTERS: [usize; 3] = [0, 1, 2];
const STREAMS: &str = "destination = 'orders-{customer}'";

fn connection(cluster: &Cluster) -> String {
    format!("url = {:?}", cluster.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_whichever_node_has_the_stream() {
    let cluster = Cluster::of_masters(String::new).await;
    Shop::of_customers(300, 2000, &connection(&cluster), STREAMS).await.sends().await;
    for master in MASTERS {
        assert!(!cluster.arrived(&[master]).await.is_empty(), "node {master} got nothing");
    }
    assert_eq!(rows_of(cluster.arrived(&MASTERS).await), ids(2000));
    // One node in the URL is enough.
    let url = format!("url = 'redis-cluster://127.0.0.1:{}'", cluster.nodes[1].port());
    Shop::of_customers(300, 300, &url, "destination = 'again-{customer}'").await.sends().await;
    assert_eq!(cluster.arrived(&MASTERS).await.len(), 2300);
    // Without that a single node is enough.
    let url = format!("url = 'redis://127.0.0.1:{}'", cluster.nodes[cluster.master_of("b").await].port());
    assert_ne!(cluster.master_of("b").await, cluster.master_of("a").await);
    Shop::small(&url, "destination = 'a'").await.defers(2, "begin the URL with redis-cluster://").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_master_costs_nothing() {
    let cluster = Cluster::with_replicas().await;
    let url = format!("url = '{}?replicas=1'", cluster.url());
    let shop = Shop::of_customers(300, 20_000, &url, STREAMS).await;
    let wait_replacement = || now(cluster.wait_replacement(&[3, 4]));
    shop.survives(|| cluster.nodes[0].kill(), || assert!(wait_replacement() > 2)).await;
    let master = wait_replacement();
    let arrived = cluster.arrived(&[master, 1, 2]).await;
    println!("{} of 20,000 arrived, node {master} has replaced the first", arrived.len());
    // No more than the batches in flight come twice.
    assert!(arrived.len() <= 20_000 + 100, "{}", arrived.len());
    assert_eq!(distinct_rows_of(arrived), ids(20_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_slots_cost_nothing() {
    let cluster = Cluster::of_masters(String::new).await;
    let shop = Shop::of_customers(3000, 40_000, &connection(&cluster), STREAMS).await;
    shop.sends_meanwhile(async || cluster.reshard(0, 1, 400).await).await;
    assert_eq!(rows_of(cluster.arrived(&MASTERS).await), ids(40_000));
    let redirected = ["MOVED", "ASK"].map(|code| now(cluster.errors(code)));
    println!("{redirected:?} redirections");
    assert!(redirected[0] > 0);
}

/// A stream that does not exist yet is created where its slot is moving to.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_a_slot_is_moving_to_is_asked() {
    let cluster = Cluster::of_masters(String::new).await;
    let from = cluster.master_of("orders-1").await;
    let to = (from + 1) % 3;
    let slot: u16 = ask(&cluster.nodes[from], &["CLUSTER", "KEYSLOT", "orders-1"]).await;
    for (node, other, direction) in [(to, from, "IMPORTING"), (from, to, "MIGRATING")] {
        let other: String = ask(&cluster.nodes[other], &["CLUSTER", "MYID"]).await;
        ask::<()>(&cluster.nodes[node], &["CLUSTER", "SETSLOT", &slot.to_string(), direction, &other]).await;
    }
    let moved = cluster.errors("MOVED").await;
    Shop::of_customers(300, 2000, &connection(&cluster), STREAMS).await.sends().await;
    assert!(cluster.errors("ASK").await > 0);
    assert_eq!(cluster.errors("MOVED").await, moved);
    let created: Vec<String> = ask(&cluster.nodes[to], &["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "10"]).await;
    assert_eq!(created, ["orders-1"]);
    let owner: String = ask(&cluster.nodes[to], &["CLUSTER", "MYID"]).await;
    for node in [to, from] {
        ask::<()>(&cluster.nodes[node], &["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &owner]).await;
    }
    assert_eq!(rows_of(cluster.arrived(&MASTERS).await), ids(2000));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_messages_cost_only_themselves() {
    let cluster = Cluster::of_masters(|| "proto-max-bulk-len 1mb".to_owned()).await;
    ask::<()>(&cluster.nodes[cluster.master_of("text").await], &["SET", "text", "x"]).await;
    let good = "customer = 'orders-' || (id % 40)";
    for (bad, words) in [
        ("customer = 'text'", "key \"text\" is not a stream"),
        ("payload = printf('%.1100000c', 'x')", "values of at most 1048576 bytes"),
    ] {
        let refusal = Refusal { settings: "destination = '{customer}'", good, bad, words };
        refusals_cost_only_themselves(&connection(&cluster), &refusal, &[2, 100], async || cluster.arrived(&MASTERS).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_over_tls_with_a_password() {
    let folder = tempfile::TempDir::new().unwrap();
    certificates(folder.path());
    let path = folder.path().display();
    let ports = std::sync::Mutex::new(Vec::new());
    let cluster = Cluster::of_masters(|| {
        let port = free_port();
        ports.lock().unwrap().push(format!("127.0.0.1:{port}"));
        let tls = format!("tls-port {port}\ntls-cert-file {path}/server.pem\ntls-key-file {path}/server.key");
        format!("{tls}\ntls-ca-cert-file {path}/ca.pem\ntls-auth-clients no\ntls-cluster yes\nuser ann on >treasure ~* +@all")
    })
    .await;
    let servers = ports.lock().unwrap().join(",");
    let url = |password: &str| format!("url = 'rediss-cluster://ann:{password}@{servers}'");
    Shop::small(&url("treasure"), "").await.cannot(69, &["the authority of the certificate of 127.0.0.1:", "set `ca`"]).await;
    let trusted = |password: &str| format!("{}\nca = '{path}/ca.pem'", url(password));
    Shop::small(&trusted("hunter2"), "").await.cannot(78, &["refuses the login: correct it in the URL"]).await;
    Shop::of_customers(300, 2000, &trusted("treasure"), STREAMS).await.sends().await;
    assert_eq!(rows_of(cluster.arrived(&MASTERS).await), ids(2000));
}

/// Where the others go on without it: they take their part of a batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_down_holds_only_its_own_messages() {
    let cluster = Cluster::of_masters(|| "cluster-require-full-coverage no".to_owned()).await;
    let shop = Shop::of_customers(300, 2000, &connection(&cluster), STREAMS).await;
    cluster.nodes[0].kill();
    let said = shop.flush();
    let (arrived, left) = (cluster.arrived(&[1, 2]).await.len(), shop.left().await);
    println!("{arrived} of 2,000 arrived at the others, {left} are left");
    assert_eq!((said.status, i64::try_from(arrived).unwrap() + left), (69, 2000), "{said:#?}");
    assert!(arrived > 50 && left > 0, "{said:#?}");
    let charged = shop.database.number("SELECT coalesce(sum(attempts), 0) FROM signalbus_hold").await;
    assert_eq!((charged, shop.reasons("dead").await), (0, vec![]), "{said:#?}");
    cluster.nodes[0].up();
    cluster.wait_well().await;
    shop.sends().await;
    assert_eq!(rows_of(cluster.arrived(&MASTERS).await), ids(2000));
}

/// A node that is down, and what the others say once they know.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_names_the_node() {
    let cluster = Cluster::of_masters(String::new).await;
    let dead = cluster.master_of("orders").await;
    let living = (dead + 1) % 3;
    let stream = cluster.stream_at(living).await;
    cluster.nodes[dead].kill();
    let words = format!("connection \"bus\": Redis at 127.0.0.1:{}: ", cluster.nodes[dead].port());
    Shop::small(&connection(&cluster), "").await.cannot(69, &[&words]).await;
    cluster.wait_down(living).await;
    let settings = format!("destination = '{stream}'");
    let words = format!("Redis at 127.0.0.1:{}: ", cluster.nodes[living].port());
    Shop::small(&connection(&cluster), &settings).await.cannot(69, &[&words, "CLUSTERDOWN", &stream]).await;
    let single = format!("url = 'redis-cluster://127.0.0.1:{}'", Broker::shared(Kind::Redis).port());
    Shop::small(&single, "").await.cannot(78, &["is not a node of a cluster: begin the URL with redis://"]).await;
}
