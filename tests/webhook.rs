//! Webhooks: the ready-made plugin, and what the relay grants it, against real HTTP servers.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use crate::harness::PATIENCE;
use crate::harness::bus::{row_of, rows_of};
use crate::harness::command::{Project, Said};
use crate::harness::database::Database;
use crate::harness::receiver::{Answer, Receiver};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A signal type with the plugin `webhook`, and a row for each path to post to.
struct Trial {
    database: Database,
    project: Project,
}

impl Trial {
    /// `more` are further lines of the signal type's section.
    async fn of(url: &str, paths: &[&str], more: &str) -> Self {
        Self::headed("", url, paths, more).await
    }

    /// Like `of`, with lines for the beginning of the file.
    async fn headed(head: &str, url: &str, paths: &[&str], more: &str) -> Self {
        let database = Database::sqlite().await;
        database.run("CREATE TABLE order_placed (id INTEGER PRIMARY KEY, path TEXT)").await;
        for path in paths {
            database.run(&format!("INSERT INTO order_placed (path) VALUES ('{path}')")).await;
        }
        let plugin = crate::harness::target().join("plugins/webhook.wasm");
        assert!(plugin.exists(), "webhook.wasm not found: run `make plugins` first");
        let config = format!(
            "{head}\n[database]\nurl = {:?}\n[signals.OrderPlaced]\nplugin = {plugin:?}\n\
             secrets = {{ signing_key = '{KEY}', token = 'hidden treasure' }}\n{more}\n\
             [signals.OrderPlaced.settings]\nurl = '{url}'\n",
            database.url
        );
        let project = Project::new(database.folder(), &config);
        Self { database, project }
    }

    fn flush(&self) -> Said {
        self.project.run(&["flush", "-w", "0"])
    }

    async fn left(&self) -> i64 {
        self.database.waiting().await
    }

    /// Asserts that nothing was sent, and nothing was charged.
    async fn untouched(&self, rows: i64) {
        assert_eq!(self.left().await, rows);
        for table in ["hold", "claim WHERE owner <> ''"] {
            assert_eq!(self.database.number(&format!("SELECT count(*) FROM signalbus_{table}")).await, 0, "{table}");
        }
    }

    async fn reasons(&self, state: &str) -> Vec<String> {
        self.database
            .lines(&format!("SELECT reason FROM signalbus_hold WHERE state = '{state}' ORDER BY CAST(signal_key AS INTEGER)"))
            .await
    }
}

fn grant(receiver: &Receiver) -> String {
    format!("grants = {{ http = ['{}'] }}", receiver.url)
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_can_verify_signatures() {
    let receiver = Receiver::start(|_| Answer::status(204)).await;
    let trial = Trial::of(&format!("{}/hooks", receiver.url), &["a", "b", "c"], &grant(&receiver)).await;
    let said = trial.flush();
    assert_eq!((said.status, said.stdout.as_str()), (0, "sent 3, deferred 0, buried 0\n"), "{said:#?}");
    let verifier = standardwebhooks::Webhook::new(KEY).unwrap();
    let mut ids = Vec::new();
    for request in receiver.requests() {
        verifier.verify(&request.body, &request.headers).unwrap();
        let row: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let id = request.headers["webhook-id"].to_str().unwrap();
        assert_eq!(row_of(id), format!("OrderPlaced:{}", row["id"]));
        assert_eq!(request.headers["content-length"].to_str().unwrap(), request.body.len().to_string());
        ids.push(id.to_owned());
    }
    assert_eq!(rows_of(ids), ["OrderPlaced:1", "OrderPlaced:2", "OrderPlaced:3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_arrive_whole() {
    let receiver = Receiver::start(|_| Answer::status(200)).await;
    let trial = Trial::of(&receiver.url, &[], &format!("memory = '128MiB'\n{}", grant(&receiver))).await;
    let rows = "INSERT INTO order_placed (path) VALUES (printf('%.1000c', 'a')), (printf('%.5000000c', 'b'))";
    trial.database.run(rows).await;
    trial.project.append("body_column = 'path'");
    let said = trial.flush();
    assert_eq!(said.stdout, "sent 2, deferred 0, buried 0\n", "{}", said.stderr);
    let mut bodies: Vec<_> = receiver.requests().into_iter().map(|request| request.body).collect();
    bodies.sort_by_key(|body| body.len());
    assert_eq!((bodies[0].len(), bodies[1].len()), (1000, 5_000_000));
    assert!(bodies[1].iter().all(|byte| *byte == b'b'));
}

/// The limit on resources concerns requests in flight, not their total number.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_can_post_more_rows_than_it_may_hold_resources() {
    for order in ["", "order_by = ['id']\n"] {
        let receiver = Receiver::start(|_| Answer::status(204)).await;
        let trial = Trial::of(&receiver.url, &[""; 1500], &format!("burst_count = 1500\n{order}{}", grant(&receiver))).await;
        let said = trial.flush();
        assert_eq!(said.stdout, "sent 1500, deferred 0, buried 0\n", "{}", said.stderr);
        assert_eq!(receiver.requests().len(), 1500, "a row was posted twice: {}", said.stderr);
    }
}

/// A key that goes on waits for no other: the server answers the slow one when the others have arrived.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_key_does_not_wait_for_a_slow_one() {
    const OTHERS: usize = 60;
    let arrived = std::sync::atomic::AtomicUsize::new(0);
    let receiver = Receiver::start(move |request| {
        let begun = Instant::now();
        if request.path == "/slow" {
            tokio::task::block_in_place(|| {
                while arrived.load(SeqCst) < OTHERS {
                    assert!(begun.elapsed() < PATIENCE, "the others wait for the slow one");
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        } else {
            arrived.fetch_add(1, SeqCst);
        }
        Answer::status(204)
    })
    .await;
    let paths = [&["slow", "slow"][..], &["a", "b"].repeat(OTHERS / 2)].concat();
    let more = format!("timeout = '100s'\norder_by = ['id']\norder_key = ['path']\n{}", grant(&receiver));
    let trial = Trial::of(&format!("{}/{{path}}", receiver.url), &paths, &more).await;
    let said = trial.flush();
    assert_eq!(said.stdout, format!("sent {}, deferred 0, buried 0\n", paths.len()), "{said:#?}");
    assert_eq!(receiver.requests().len(), paths.len());
    assert!(receiver.most_at_once() <= 3, "{}", receiver.most_at_once());
}

/// In an ordered type the rows go one after the other: a stop does not wait for the rest of the batch, and
/// does not lose sent rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_an_ordered_batch_settles_what_is_sent() {
    let receiver = Receiver::start(|_| Answer::status(204).after(Duration::from_millis(100))).await;
    let trial =
        Trial::of(&receiver.url, &[""; 500], &format!("burst_count = 500\norder_by = ['id']\n{}", grant(&receiver))).await;
    let log = std::fs::File::create(trial.database.folder().join("log")).unwrap();
    let mut flush = trial.project.command(&["flush"]).stderr(log).stdout(std::process::Stdio::null()).spawn().unwrap();
    while receiver.requests().len() < 5 {
        assert!(flush.try_wait().unwrap().is_none(), "the relay has ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    crate::harness::command::terminate(&flush);
    flush.wait().unwrap();
    let posted = i64::try_from(receiver.requests().len()).unwrap();
    assert!(posted < 500, "the whole batch was sent");
    assert_eq!(trial.left().await, 500 - posted, "posted rows are deleted");
    assert_eq!(trial.database.number("SELECT count(*) FROM signalbus_claim WHERE owner <> ''").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_decides_the_outcome() {
    let receiver = Receiver::start(|request| match request.path.trim_start_matches('/') {
        "busy" => Answer::status(503).header("retry-after", "3600"),
        status => Answer::status(status.parse().unwrap()).body("because"),
    })
    .await;
    let paths = ["200", "500", "410", "422", "busy"];
    let trial = Trial::of(&format!("{}/{{path}}", receiver.url), &paths, &grant(&receiver)).await;
    let said = trial.flush();
    assert_eq!((said.status, said.stdout.as_str()), (1, "sent 1, deferred 2, buried 2\n"), "{said:#?}");
    assert_eq!(trial.reasons("retry").await, ["the server answered 500: because", "the server answered 503"]);
    assert_eq!(trial.reasons("dead").await, ["the receiver is gone (410)", "the server answered 422: because"]);
    let wait = "SELECT max(due_at) - unixepoch() * 1000 FROM signalbus_hold WHERE state = 'retry'";
    assert!((3_500_000..=3_601_000).contains(&trial.database.number(wait).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_charges_nothing() {
    let port = crate::harness::server::free_port();
    let url = format!("http://127.0.0.1:{port}");
    let trial = Trial::of(&url, &["a", "b"], &format!("grants = {{ http = ['{url}'] }}")).await;
    let said = trial.flush();
    assert_eq!(said.status, 69, "{said:#?}");
    assert!(said.stderr.contains("server is not reachable: connection refused"), "{said:#?}");
    trial.untouched(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_times_out() {
    let receiver = Receiver::start(|_| Answer::status(200).after(Duration::from_secs(60))).await;
    let more = format!("timeout = '3s'\n{}", grant(&receiver));
    let trial = Trial::of(&receiver.url, &["a", "b"], &more).await;
    let begun = Instant::now();
    let said = trial.flush();
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(said.stdout, "sent 0, deferred 2, buried 0\n", "{said:#?}");
    assert_eq!(trial.reasons("retry").await, ["server did not answer in time"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_are_in_flight_at_once() {
    let receiver = Receiver::start(|_| Answer::status(200).after(Duration::from_millis(300))).await;
    let trial = Trial::of(&receiver.url, &["x"; 100], &grant(&receiver)).await;
    assert_eq!(trial.flush().stdout, "sent 100, deferred 0, buried 0\n");
    assert!((20..=50).contains(&receiver.most_at_once()), "{}", receiver.most_at_once());
}

#[tokio::test(flavor = "multi_thread")]
async fn order_stops_at_the_first_failure() {
    let receiver = Receiver::start(|request| Answer::status(if request.path == "/bad" { 500 } else { 200 })).await;
    let more = format!("order_by = ['id']\n{}", grant(&receiver));
    let trial = Trial::of(&format!("{}/{{path}}", receiver.url), &["a", "bad", "b"], &more).await;
    assert_eq!(trial.flush().stdout, "sent 1, deferred 1, buried 0\n");
    let paths: Vec<String> = receiver.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/a", "/bad"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let receiver = Receiver::start(|_| Answer::status(302).header("location", "http://169.254.169.254/latest")).await;
    let trial = Trial::of(&receiver.url, &["a"], &grant(&receiver)).await;
    assert_eq!(trial.flush().stdout, "sent 0, deferred 0, buried 1\n");
    let reason = "the server answered 302: redirect to http://169.254.169.254/latest not followed";
    assert_eq!(trial.reasons("dead").await, [reason]);
    assert_eq!(receiver.requests().len(), 1);
}

/// Asserts that nothing arrives, nothing is charged, and the log says what is missing.
async fn denied(receiver: &Receiver, url: &str, more: &str, words: &str) {
    let trial = Trial::of(url, &["a", "b"], more).await;
    let said = trial.flush();
    assert_eq!(said.status, 78, "{said:#?}");
    assert!(said.stderr.contains("plugin denied a capability that is not granted") && said.stderr.contains(words), "{said:#?}");
    assert_eq!(said.stderr.matches("plugin denied").count(), 1, "{said:#?}");
    trial.untouched(2).await;
    assert_eq!(receiver.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn origins_without_a_grant_are_denied() {
    let receiver = Receiver::start(|_| Answer::status(200)).await;
    let port = receiver.port;
    let elsewhere = "grants = { http = ['https://shop.example'] }";
    denied(&receiver, &receiver.url, elsewhere, &format!("http://127.0.0.1:{port}")).await;
    let other_port = format!("grants = {{ http = ['http://127.0.0.1:{}'] }}", port ^ 1);
    denied(&receiver, &receiver.url, &other_port, "is not granted: add it to `grants.http`").await;
    for spelling in ["2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "localhost"] {
        let url = format!("http://{spelling}:{port}");
        denied(&receiver, &url, elsewhere, "is not granted: add it to `grants.http`").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_name_opens_no_private_network() {
    let receiver = Receiver::start(|_| Answer::status(200)).await;
    // The machine's own name resolves to an address that is not public.
    let name = std::fs::read_to_string("/etc/hostname").unwrap().trim().to_owned();
    let addresses = std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), 0)).map(Iterator::collect::<Vec<_>>);
    let Ok(addresses) = addresses else { return eprintln!("the name {name} has no address") };
    let url = format!("http://{name}:{}", receiver.port);
    let granted = format!("grants = {{ http = ['{url}'] }}");
    denied(&receiver, &url, &granted, "which is not public: add its range to `grants.networks`").await;
    let ranges: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let granted = format!("grants = {{ http = ['{url}'], networks = {ranges:?} }}");
    let trial = Trial::of(&url, &["a", "b"], &granted).await;
    assert_eq!(trial.flush().stdout, "sent 2, deferred 0, buried 0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn localhost_can_be_granted() {
    let receiver = Receiver::start(|_| Answer::status(200)).await;
    let url = format!("http://localhost:{}", receiver.port);
    let trial = Trial::of(&url, &["a"], &format!("grants = {{ http = ['{url}'] }}")).await;
    assert_eq!(trial.flush().stdout, "sent 1, deferred 0, buried 0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_type_has_its_own_grants() {
    let receiver = Receiver::start(|_| Answer::status(200)).await;
    let plugin = crate::harness::target().join("plugins/webhook.wasm");
    let stranger = format!(
        "{}\n[signals.Stranger]\nplugin = {plugin:?}\nsecrets = {{ signing_key = '{KEY}' }}\nsettings = {{ url = '{}' }}\n\
         grants = {{ http = ['https://shop.example'] }}\n",
        grant(&receiver),
        receiver.url
    );
    let trial = Trial::of(&receiver.url, &["a", "b"], &stranger).await;
    trial.database.run("CREATE TABLE stranger (id INTEGER PRIMARY KEY); INSERT INTO stranger VALUES (1)").await;
    let said = trial.flush();
    assert_eq!((said.status, said.stdout.as_str()), (78, "sent 2, deferred 0, buried 0\n"), "{said:#?}");
    assert_eq!(trial.database.number("SELECT count(*) FROM stranger").await, 1);
    assert_eq!(receiver.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_inserted_into_headers_on_the_way_out() {
    let receiver = Receiver::start(|request| Answer::status(400).body(request.headers["authorization"].to_str().unwrap())).await;
    let settings = "headers = { authorization = 'Bearer {{secret:token}}' }";
    let trial = Trial::of(&receiver.url, &["a"], &grant(&receiver)).await;
    trial.project.append(settings);
    let said = trial.flush();
    assert_eq!(said.stdout, "sent 0, deferred 0, buried 1\n", "{said:#?}");
    assert_eq!(receiver.requests()[0].headers["authorization"], "Bearer hidden treasure");
    assert_eq!(trial.reasons("dead").await, ["the server answered 400: Bearer [secret]"]);
    assert!(!said.stderr.contains("hidden treasure"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_secret_is_denied() {
    let receiver = Receiver::start(|_| Answer::status(200)).await;
    let trial = Trial::of(&receiver.url, &["a"], &grant(&receiver)).await;
    trial.project.append("headers = { authorization = '{{secret:nothing}}' }");
    let said = trial.flush();
    assert_eq!(said.status, 78, "{said:#?}");
    assert!(said.stderr.contains("uses secret \\\"nothing\\\", which is not configured"), "{said:#?}");
    trial.untouched(1).await;
    assert_eq!(receiver.requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_authority_is_trusted() {
    let (receiver, ca) = Receiver::start_tls(|_| Answer::status(200)).await;
    let trial = Trial::of(&receiver.url, &["a"], &grant(&receiver)).await;
    let said = trial.flush();
    assert_eq!(said.status, 69, "{said:#?}");
    assert!(said.stderr.contains("its certificate is not trusted"), "{said:#?}");
    trial.untouched(1).await;

    let trial = Trial::headed("[http]\nca = 'ca.pem'", &receiver.url, &["a", "b"], &grant(&receiver)).await;
    let said = trial.flush();
    assert!(said.status == 78 && said.stderr.contains("`http.ca`"), "{said:#?}");
    std::fs::write(trial.project.folder().join("ca.pem"), ca).unwrap();
    let said = trial.flush();
    assert_eq!((said.status, said.stdout.as_str()), (0, "sent 2, deferred 0, buried 0\n"), "{said:#?}");
    let versions: Vec<_> = receiver.requests().into_iter().map(|request| request.version).collect();
    assert_eq!(versions, [axum::http::Version::HTTP_2; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_grants_are_reported_with_their_location() {
    let more = "grants = { http = ['shop.example', 'https://shop.example/hooks'], tcp = ['smtp'], networks = ['10/8'] }";
    let trial = Trial::of("https://shop.example", &[], more).await;
    let said = trial.project.run(&["check"]);
    let told = format!("{}{}", said.stdout, said.stderr);
    assert_eq!(said.status, 78, "{said:#?}");
    for words in [
        "signalbus.toml:7:20: `signals.OrderPlaced.grants.http`: \"shop.example\" is not an HTTP origin; write",
        "\"https://shop.example/hooks\" has a path, but grants are for whole hosts",
        "`signals.OrderPlaced.grants.tcp`: \"smtp\" is not a host and port; write",
        "`signals.OrderPlaced.grants.networks`: \"10/8\" is not an address range; write",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
