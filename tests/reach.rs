//! What plugins open and hold in the relay: sockets, HTTP requests, and what travels through them.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::PATIENCE;
use crate::harness::command::Project;
use crate::harness::database::Database;
use crate::harness::guest;
use crate::harness::relay::{Running, section};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A server that accepts every connection and does this with it; returns its port.
async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// The connections of a server.
type Kept = Arc<Mutex<Vec<TcpStream>>>;

/// A server that keeps its connections and neither reads nor writes.
async fn silent() -> (u16, Kept) {
    let kept = Kept::default();
    let keep = kept.clone();
    let port = server(move |stream| {
        keep.lock().unwrap().push(stream);
        std::future::ready(())
    })
    .await;
    (port, kept)
}

/// A server that reads the head of a request, and answers with this part again and again.
async fn endless(begin: &'static str, again: impl AsRef<[u8]> + Clone + Send + Sync + 'static) -> u16 {
    server(move |mut stream| {
        let again = again.clone();
        async move {
            let _ = stream.read(&mut [0; 1 << 16]).await;
            let _ = stream.write_all(begin.as_bytes()).await;
            while stream.write_all(again.as_ref()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    })
    .await
}

/// Flushes one signal with a guest, and returns the reason for which it rejects it, and the log.
async fn told(name: &str, more: &str) -> (String, String) {
    let database = Database::sqlite().await;
    database.orders(1).await;
    let text = format!("[database]\nurl = {:?}\n{}", database.url, section("OrderPlaced", &guest(name), more));
    let said = Project::new(database.folder(), &text).run(&["flush", "-w", "0"]);
    let reasons = database.lines("SELECT reason FROM signalbus_hold").await;
    assert_eq!(reasons.len(), 1, "{said:#?}");
    (reasons[0].clone(), said.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_has_a_bounded_number_of_sockets() {
    let (port, kept) = silent().await;
    let with = |sockets: u32| {
        format!(
            "timeout = '60s'\ngrants.tcp = ['127.0.0.1:{port}']\n[signals.OrderPlaced.settings]\naddress = '127.0.0.1:{port}'\nsockets = {sockets}"
        )
    };
    assert_eq!(told("hoards_sockets", &with(64)).await.0, "opened 64: done");
    for sockets in [65, 990] {
        let (reason, log) = told("hoards_sockets", &with(sockets)).await;
        assert!(reason.starts_with("opened 64: "), "{reason}");
        assert!(log.contains("an instance may have 64 sockets and name lookups open at once"), "{log}");
    }
    assert_eq!(kept.lock().unwrap().len(), 3 * 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_sockets_make_room_for_others() {
    let (port, _) = silent().await;
    let more = format!(
        "timeout = '60s'\ngrants.tcp = ['127.0.0.1:{port}']\n[signals.OrderPlaced.settings]\naddress = '127.0.0.1:{port}'\nsockets = 500\nkeeps = false"
    );
    assert_eq!(told("hoards_sockets", &more).await.0, "opened 500: done");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_listen() {
    for address in ["0.0.0.0:0", "127.0.0.1:0", "[::]:0", "0.0.0.0:18080"] {
        let more = format!("grants.tcp = ['127.0.0.1:18080']\n[signals.OrderPlaced.settings]\nlisten = '{address}'");
        let (reason, _) = told("hoards_sockets", &more).await;
        assert!(reason.starts_with("refused: "), "{address}: {reason}");
    }
}

/// Few descriptors are left to the process by its system; two types open sockets.
#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_one_type_leave_descriptors_for_others() {
    let (port, kept) = silent().await;
    let database = Database::sqlite().await;
    database.orders(8).await;
    database.run("CREATE TABLE bystander (id INTEGER PRIMARY KEY)").await;
    let grants = format!("timeout = '60s'\ngrants.tcp = ['127.0.0.1:{port}']");
    let settings = |name: &str| format!("[signals.{name}.settings]\naddress = '127.0.0.1:{port}'\nsockets = 990\nseconds = 15");
    let hoarder = format!("burst_count = 1\n{grants}\n{}", settings("OrderPlaced"));
    let bystander = format!("{grants}\n{}", settings("Bystander"));
    let signals = section("OrderPlaced", &guest("hoards_sockets"), &hoarder)
        + &section("Bystander", &guest("opens_socket"), &bystander)
        + &section("Plain", &guest("sends"), "table = 'plain'");
    database.run("CREATE TABLE plain (id INTEGER PRIMARY KEY)").await;
    let mut relay = Running::start_within(300, &database, &signals);
    relay.wait("the sockets are not open", || kept.lock().unwrap().len() >= 50);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    database.run("INSERT INTO bystander VALUES (1), (2); INSERT INTO plain VALUES (1), (2)").await;
    relay.post("/api/v1/wake");
    relay.wait_empty(&database, "plain").await;
    let dead = "SELECT count(*) FROM signalbus_hold WHERE signal_type = 'Bystander' AND reason = 'connected'";
    while database.number(dead).await < 2 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", relay.witness.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(relay.get("/readyz").status, 200);
    let held = kept.lock().unwrap().len();
    assert!(held <= 300 / 2, "{held} sockets are open");
    assert!(relay.witness.text().contains("its share of the file descriptors"), "{}", relay.witness.text());
    relay.kill();
}

/// The relay, which hoards requests of a plugin in four instances at once, until it has tried each signal.
async fn peak(settings: &str, port: u16) -> (u64, Vec<String>) {
    let database = Database::sqlite().await;
    database.orders(4).await;
    let more = format!(
        "burst_count = 1\ntimeout = '60s'\ngrants.http = ['http://127.0.0.1:{port}']\n\
         [signals.OrderPlaced.settings]\nurl = 'http://127.0.0.1:{port}/'\n{settings}"
    );
    let mut relay = Running::start(&database, &section("OrderPlaced", &guest("hoards_requests"), &more));
    let begun = Instant::now();
    while database.number("SELECT count(*) FROM signalbus_hold").await < 4 {
        assert!(begun.elapsed() < PATIENCE, "{}", relay.witness.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let peak = relay.peak_memory();
    assert_eq!(relay.stop(), Some(0));
    (peak, database.lines("SELECT reason FROM signalbus_hold").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_nobody_reads_hold_bounded_memory() {
    // Whoever connects waits, and its body with it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let _listener = socket.listen(1).unwrap();
    // What the relay does not take remains with the plugin, whose memory is bounded.
    for (requests, words) in [(40, "did not answer in time"), (300, "plugin exceeded its memory limit of 64 MiB")] {
        let (peak, reasons) = peak(&format!("requests = {requests}\nparallel = 900"), port).await;
        assert!(peak < 450_000, "the relay took {peak} KiB for {requests}: {reasons:?}");
        assert!(reasons.iter().all(|reason| reason.contains(words)), "{requests}: {reasons:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_responses_hold_bounded_memory() {
    const BODY: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let header = format!("x-long: {}\r\n", "y".repeat(4000));
    for (begin, again, words) in [
        (BODY, chunk, "200, 1000 bytes"),
        ("HTTP/1.1 200 OK\r\n", header, "connection broke"),
        ("", "x".repeat(9000), "connection broke"),
    ] {
        let port = endless(begin, again).await;
        let (peak, reasons) = peak("requests = 100\nparallel = 100\nbytes = 10\ntimeout_ms = 50000", port).await;
        assert!(peak < 500_000, "the relay took {peak} KiB: {reasons:?}");
        assert!(reasons.iter().all(|reason| reason.contains(words)), "{reasons:?}");
    }
}

/// What is compressed is passed as it is: a small response stays one.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decompressed() {
    let port = endless("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n", "\x1f\u{8b}abc").await;
    let more = format!(
        "grants.http = ['http://127.0.0.1:{port}']\n[signals.OrderPlaced.settings]\nurl = 'http://127.0.0.1:{port}/'\nrequests = 1\nbytes = 1"
    );
    assert_eq!(told("hoards_requests", &more).await.0, "{\"200, 5 bytes\": 1}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_may_be_in_flight_wait_for_one_another() {
    let counts = Arc::<[AtomicUsize; 2]>::default();
    let counted = counts.clone();
    let port = server(move |mut stream| {
        let counted = counted.clone();
        async move {
            let [now, most] = &*counted;
            let mut bytes = [0; 1 << 16];
            while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_secs(2)).await;
                now.fetch_sub(1, SeqCst);
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    })
    .await;
    let more = format!(
        "timeout = '60s'\ngrants.http = ['http://127.0.0.1:{port}']\n[signals.OrderPlaced.settings]\n\
         url = 'http://127.0.0.1:{port}/'\nbytes = 0\nrequests = 600\nparallel = 300\ntimeout_ms = 50000"
    );
    assert_eq!(told("hoards_requests", &more).await.0, "{\"204, 0 bytes\": 600}");
    let most = counts[1].load(SeqCst);
    assert!((100..=256).contains(&most), "{most} requests at once");
}
