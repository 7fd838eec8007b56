//! What signal types share: those that take all that they can get leave the others their part.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::*;
use crate::harness::broker::{Broker, Kind};

/// A component that no cache has, of a core module.
fn fresh(module: Vec<u8>) -> Vec<u8> {
    component(with_section(module, "fresh", &fastrand::u64(..).to_le_bytes()))
}

/// Files that are costly to compile come after one that is not, although they were there before it.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_little_is_compiled_before_what_takes_long() {
    const COSTLY: usize = 15;
    let folder = tempfile::TempDir::new().unwrap();
    let database = Database::sqlite().await;
    database.orders(5).await;
    let mut signals = String::new();
    for n in 0..COSTLY {
        let plugin = folder.path().join(format!("costly-{n}.wasm"));
        std::fs::write(&plugin, fresh(tangle(4000 + n))).unwrap();
        database.run(&format!("CREATE TABLE costly_{n} (id INTEGER PRIMARY KEY)")).await;
        signals += &section(&format!("costly_{n}"), &plugin, &format!("table = 'costly_{n}'"));
    }
    let honest = folder.path().join("honest.wasm");
    std::fs::write(&honest, fresh(components::module("", "", "(call $sent (local.get $signals))"))).unwrap();
    database.run("CREATE TABLE bystander (id INTEGER PRIMARY KEY)").await;
    signals += &section("Bystander", &guest("counts"), "");
    let relay = Running::spawn(&database, &signals, "");
    relay.wait("nothing is being compiled", || relay.witness.text().contains("compiling plugin"));
    relay.wait("no type has started", || relay.status_of("Bystander")["state"] == "running");
    relay.configure(&database, &(signals + &section("OrderPlaced", &honest, "")));
    relay.signal("HUP");
    while database.count("order_placed").await > 0 {
        let log = relay.witness.text();
        assert!(!log.contains("it takes more than"), "a costly file was done with first: {log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Many workers that come to the database at once leave a neighbour its turns.
#[tokio::test(flavor = "multi_thread")]
async fn many_workers_leave_the_database_to_others() {
    const NEIGHBOURS: u32 = 500;
    let crowd = Crowd::start(1, &guest("sends"), "concurrency = 256", &guest("counts")).await;
    crowd.database.run(&format!("INSERT INTO crowd_0 SELECT 10000 + i FROM {}", crowd.database.series(40_000))).await;
    let left = async || crowd.database.count("crowd_0").await;
    let all = left().await;
    while left().await > all - 1000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = left().await;
    crowd.neighbour_sends(NEIGHBOURS).await;
    let sent = before - left().await;
    // In turns with each worker of the crowd, it would be forty times as many as the neighbour's.
    assert!(sent < 5 * i64::from(NEIGHBOURS), "beside {NEIGHBOURS} rows of the neighbour, {sent} others were sent");
}

/// A plugin that publishes again and again to a destination, so many messages of so many bytes at a time.
fn floods(destination: &str, messages: usize, bytes: usize) -> Vec<u8> {
    let (imports, length) =
        (r#"(import "signalbus:plugin/producer@0.1.1" "publish" (func $publish (param i32 i32 i32)))"#, destination.len());
    // Each message: its connection, its destination, no key, no content type, no headers, its body, no id, one option.
    let data = format!(
        r#"(data (i32.const 90000) "bus") (data (i32.const 90100) "{destination}")
           (data (i32.const 90200) "redis.maxlen") (data (i32.const 90300) "10")
           (data (i32.const 90400) "\58\60\01\00\0c\00\00\00\bc\60\01\00\02\00\00\00")"#
    );
    let body = format!(
        r#"(local $n i32) (local $at i32) (drop (memory.grow (i32.const 64)))
           (loop $each
             (local.set $at (i32.add (i32.const 100000) (i32.mul (local.get $n) (i32.const 76))))
             (i32.store (local.get $at) (i32.const 90000)) (i32.store offset=4 (local.get $at) (i32.const 3))
             (i32.store offset=8 (local.get $at) (i32.const 90100)) (i32.store offset=12 (local.get $at) (i32.const {length}))
             (i32.store offset=52 (local.get $at) (i32.const {bytes}))
             (i32.store offset=68 (local.get $at) (i32.const 90400)) (i32.store offset=72 (local.get $at) (i32.const 1))
             (local.set $n (i32.add (local.get $n) (i32.const 1)))
             (br_if $each (i32.lt_u (local.get $n) (i32.const {messages}))))
           (loop $again (global.set $free (i32.const 131072)) (call $publish (i32.const 100000) (i32.const {messages}) (i32.const 512)) (br $again))
           unreachable"#
    );
    components::component(components::module(imports, &data, &body))
}

/// Signal types with 16 workers each, for which there is just room, beside `OrderPlaced`, which publishes its rows. Once they
/// have rows, they publish so many messages of so many bytes at a time, without pause.
async fn beside_floods(messages: usize, bytes: usize) -> (Broker, Database, Running) {
    let broker = tokio::task::block_in_place(|| Broker::start(Kind::Redis, "appendonly no"));
    let database = Database::sqlite().await;
    let plugin = database.folder().join("floods.wasm");
    std::fs::write(&plugin, floods("flood", messages, bytes)).unwrap();
    let granted = "grants.connections = [{ name = 'bus', options = ['redis.maxlen'] }]\ntimeout = '60s'";
    let mut signals = format!("[connections.bus]\nurl = {:?}\n", broker.url());
    for n in 0..FLOODS {
        database.run(&format!("CREATE TABLE flood_{n} (id INTEGER PRIMARY KEY)")).await;
        let more = format!("{granted}\ntable = 'flood_{n}'\nburst_count = 5\nconcurrency = 16");
        signals += &section(&format!("flood_{n}"), &plugin, &more);
    }
    signals += &section("OrderPlaced", &guest("publishes"), &format!("{granted}\nburst_count = 100"));
    database.orders(1).await;
    let relay = Running::start(&database, &signals);
    (broker, database, relay)
}

const FLOODS: u32 = 15;

/// Lets the others publish, and waits until so many messages are confirmed.
async fn begin_floods(database: &Database, relay: &Running, messages: f64) {
    for n in 0..FLOODS {
        database.run(&format!("INSERT INTO flood_{n} SELECT i FROM {}", database.series(320))).await;
    }
    relay.wait("nothing is published", || published(relay) > messages);
}

/// Sends so many rows of `OrderPlaced`, behind those that were sent, and returns the time that processors spent meanwhile.
async fn send_orders(database: &Database, relay: &Running, rows: u32) -> Duration {
    static LAST: AtomicU32 = AtomicU32::new(10);
    let last = LAST.fetch_add(rows, SeqCst);
    let before = relay.processor_time();
    database.run(&format!("INSERT INTO order_placed SELECT {last} + i, 'a', 'b' FROM {}", database.series(rows))).await;
    relay.wait_empty(database, "order_placed").await;
    relay.processor_time() - before
}

/// How many messages the bus has confirmed.
fn published(relay: &Running) -> f64 {
    relay.metric("signalbus_bus_messages_total{connection=\"bus\",outcome=\"sent\"}")
}

/// Types that publish without pause leave a neighbour its part of the bus.
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_messages_leave_the_bus_to_others() {
    let (_broker, database, relay) = beside_floods(200, 100).await;
    // (What else the machine does can only add to it.)
    let least = async || {
        let first = send_orders(&database, &relay, 3000).await;
        let second = send_orders(&database, &relay, 3000).await;
        first.min(second).min(send_orders(&database, &relay, 3000).await)
    };
    let alone = least().await;
    begin_floods(&database, &relay, 20_000.0).await;
    let beside = least().await;
    // Half of its fair share is the least.
    let most = 2 * (FLOODS + 1) * alone;
    assert!(beside < most, "alone, it takes {alone:?} of processor time, and beside the others {beside:?}");
}

/// What all types publish together takes a bounded amount of memory.
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_bytes_take_bounded_memory() {
    let (_broker, database, relay) = beside_floods(8, 1 << 20).await;
    begin_floods(&database, &relay, 400.0).await;
    send_orders(&database, &relay, 50).await;
    let peak = relay.peak_memory();
    // (Without a bound it was 2.7 GB.)
    assert!(peak < 3 * MEMORY, "the relay took {peak} KiB");
}

/// However many calls compute for ever, a relay ends when its grace period does.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_crowds_that_compute() {
    let folder = tempfile::TempDir::new().unwrap();
    let endless =
        components::write(folder.path(), "endless", components::module("", "", "(loop $again (br $again)) unreachable"));
    let (database, signals) = Crowd::prepare(15, &endless, "concurrency = 14\ntimeout = '1h'", &guest("counts")).await;
    let relay = Running::start_with(&["run", "--grace", "2"], &database, &signals);
    let mut crowd = Crowd { database, relay };
    crowd.relay.wait("nothing is computed", || crowd.relay.processor_time() > Duration::from_secs(2));
    crowd.neighbour_sends(50).await;
    // Each of the calls would last for hours.
    assert_eq!(crowd.relay.stop(), Some(1), "{}", crowd.relay.witness.text());
    assert!(crowd.relay.witness.text().contains("calls in flight did not finish within 2s"));
    let left = crowd.database.number("SELECT count(*) FROM crowd_0").await;
    assert_eq!(left, 2000);
}

/// Servers that send heads without end, slowly, make the relay hold a bounded number of them.
#[tokio::test(flavor = "multi_thread")]
async fn heads_without_end_take_bounded_memory() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let begun = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let begun = begun.clone();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&[b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'x'; 390_000]].concat()).await;
                begun.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                std::future::pending::<()>().await;
            });
        }
    });
    let database = Database::sqlite().await;
    database.orders(4).await;
    let more = format!(
        "burst_count = 1\nconcurrency = 4\ntimeout = '20m'\ngrants.http = ['http://127.0.0.1:{port}']\n\
         [signals.OrderPlaced.settings]\nurl = 'http://127.0.0.1:{port}/'\nrequests = 256\nparallel = 256\nbytes = 0\n\
         timeout_ms = 1000000"
    );
    let relay = Running::start(&database, &section("OrderPlaced", &guest("hoards_requests"), &more));
    let count = || heads.load(std::sync::atomic::Ordering::SeqCst);
    relay.wait("too few heads are awaited", || count() >= 512);
    let waits = || {
        let status = relay.status_of("OrderPlaced");
        status["state"] == "waiting" && status["reason"].as_str().is_some_and(|reason| reason.contains("HTTP responses"))
    };
    relay.wait("the others do not wait", waits);
    let peak = relay.peak_memory();
    assert_eq!(count(), 512);
    assert!(peak < MEMORY, "the relay took {peak} KiB");
}
