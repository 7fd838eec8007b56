//! What signal types share: those that take all that they can get leave the others their part.

use super::*;

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
        "burst_count = 1\nconcurrency = 4\ntimeout = '60s'\ngrants.http = ['http://127.0.0.1:{port}']\n\
         [signals.OrderPlaced.settings]\nurl = 'http://127.0.0.1:{port}/'\nrequests = 256\nparallel = 256\nbytes = 0\n\
         timeout_ms = 50000"
    );
    let relay = Running::start(&database, &section("OrderPlaced", &guest("hoards_requests"), &more));
    let count = || heads.load(std::sync::atomic::Ordering::SeqCst);
    relay.wait("too few heads are awaited", || count() >= 512);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let peak = relay.peak_memory();
    assert_eq!(count(), 512);
    assert!(peak < MEMORY, "the relay took {peak} KiB");
}
