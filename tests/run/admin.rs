//! The admin listener.

use crate::harness::command::Project;
use crate::harness::database::Database;
use crate::harness::guest;
use crate::harness::relay::{Running, section};
use crate::harness::server::free_port;
use std::io::{Read as _, Write as _};

async fn orders(rows: u32) -> Database {
    let database = Database::sqlite().await;
    database.orders(rows).await;
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn health_status_and_wake_are_answered() {
    let database = orders(0).await;
    let relay = Running::start(&database, &section("OrderPlaced", &guest("sends"), ""));
    assert_eq!(relay.get("/healthz").status, 200);
    assert_eq!(relay.get("/readyz").json()["ready"], true);
    let status = relay.status_of("OrderPlaced");
    assert_eq!((&status["table"], &status["state"]), (&"order_placed".into(), &"running".into()));
    assert_eq!(relay.post("/api/v1/wake").json()["woken"][0], "OrderPlaced");
    assert_eq!(relay.post("/api/v1/wake?signal=OrderPlaced").status, 200);
    let unknown = relay.post("/api/v1/wake?signal=OrderPlcaed");
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("did you mean"), "{unknown:?}");
    assert_eq!(relay.get("/nothing").status, 404);
    assert_eq!(relay.get("/api/v1/wake").status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_type_is_not_ready_while_others_keep_running() {
    let database = orders(3).await;
    database.run("CREATE TABLE b (id BIGINT PRIMARY KEY)").await;
    let sections = section("OrderPlaced", &guest("misconfigured"), "") + &section("B", &guest("counts"), "");
    let relay = Running::spawn(&database, &sections, "");
    relay.wait("the relay is still ready", || {
        relay.request("GET", "/readyz", "", "").is_ok_and(|answer| answer.body.contains("misconfigured"))
    });
    assert_eq!(relay.get("/readyz").status, 503);
    assert_eq!(relay.get("/healthz").status, 200);
    assert_eq!(relay.status_of("OrderPlaced")["state"], "paused");
    assert_eq!(relay.metric("signalbus_ready{signal=\"OrderPlaced\"}"), 0.0);
    database.run("INSERT INTO b VALUES (1)").await;
    relay.witness.wait_for(1);
    assert_eq!(relay.metric("signalbus_ready{signal=\"B\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_pauses_only_its_own_type() {
    let database = orders(0).await;
    database.run("CREATE TABLE b (id BIGINT PRIMARY KEY)").await;
    let sections = section("OrderPlaced", &guest("counts"), "") + &section("B", &guest("counts"), "");
    let relay = Running::start(&database, &sections);
    database.run("ALTER TABLE order_placed RENAME TO elsewhere").await;
    relay.wait("the relay is still ready", || relay.get("/readyz").body.contains("order_placed"));
    for id in 1..=3 {
        database.run(&format!("INSERT INTO b VALUES ({id})")).await;
        relay.wait("the other type is not sent", || relay.witness.counts().contains_key(&format!("B:{id}")));
    }
    database.run("INSERT INTO elsewhere VALUES (1, 'c', 'p')").await;
    database.run("ALTER TABLE elsewhere RENAME TO order_placed").await;
    relay.wait("the type was not resumed", || relay.witness.counts().contains_key("OrderPlaced:1"));
    relay.wait_ready();
    // Logged once, not at every try.
    assert_eq!(relay.witness.text().matches("signal type paused").count(), 1, "{}", relay.witness.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_require_the_token() {
    let database = orders(0).await;
    let relay = Running::spawn(&database, &section("OrderPlaced", &guest("sends"), ""), "token = \"open sesame\"");
    relay.wait_ready();
    let post = |headers: &str| relay.request("POST", "/api/v1/wake", headers, "").unwrap().status;
    assert_eq!(post(""), 401);
    assert_eq!(post("Authorization: Bearer open sesamf\r\n"), 401);
    assert_eq!(post("Authorization: Bearer open\r\n"), 401);
    assert_eq!(post("Authorization: Bearer open sesame\r\n"), 200);
    assert_eq!(relay.get("/api/v1/status").status, 200);
    // The command reads the token from the configuration.
    relay.project.ok(&["plugin", "swap", "OrderPlaced"]);
    let everything = relay.witness.text() + &relay.get("/api/v1/status").body + &relay.get("/metrics").body;
    assert!(!everything.contains("sesame"), "{everything}");
}

#[tokio::test(flavor = "multi_thread")]
async fn web_pages_and_large_bodies_are_rejected() {
    let database = orders(0).await;
    let relay = Running::start(&database, &section("OrderPlaced", &guest("sends"), ""));
    let from_page = relay.request("POST", "/api/v1/wake", "Origin: http://evil.example\r\n", "").unwrap();
    assert_eq!(from_page.status, 403);
    let large = format!("{{\"ids\": [{}1]}}", "1, ".repeat(40_000));
    assert_eq!(relay.request("POST", "/api/v1/dead/redrive", "", &large).unwrap().status, 413);
    // A client that sends no complete request is disconnected.
    let mut silent = std::net::TcpStream::connect(("127.0.0.1", relay.port)).unwrap();
    silent.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = silent.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_redriven() {
    let database = orders(3).await;
    let plugin = crate::harness::relay::plugin_file(&database, "rejects");
    let relay = Running::spawn(&database, &section("OrderPlaced", &plugin, ""), "");
    let buried = "signalbus_buried_total{signal=\"OrderPlaced\"}";
    relay.wait("the signals were not dead-lettered", || {
        relay.request("GET", "/metrics", "", "").is_ok_and(|_| relay.metric(buried) == 3.0)
    });
    for (body, status) in [("{}", 400), ("{\"ids\": [7]}", 404), ("{\"all\": true, \"ids\": [1]}", 400), ("{\"al\": true}", 422)]
    {
        assert_eq!(relay.request("POST", "/api/v1/dead/redrive", "", body).unwrap().status, status, "{body}");
    }
    crate::harness::relay::replace(&plugin, "counts");
    assert_eq!(relay.post("/api/v1/signals/OrderPlaced/plugin").status, 200);
    let one = relay.request("POST", "/api/v1/dead/redrive", "", "{\"ids\": [2]}").unwrap();
    assert_eq!(one.json()["redriven"], 1, "{one:?}");
    let rest = relay.request("POST", "/api/v1/dead/redrive", "", "{\"signal\": \"OrderPlaced\"}").unwrap();
    assert_eq!(rest.json()["redriven"], 2, "{rest:?}");
    relay.witness.wait_for(3);
    assert_eq!(relay.witness.all_sent(3), 0);
}

#[test]
fn a_listener_beyond_loopback_requires_a_token() {
    let folder = tempfile::TempDir::new().unwrap();
    for (admin, words) in [
        ("listen = \"0.0.0.0:9464\"", "so `admin.token` is required"),
        ("listen = \"localhost\"", "invalid address \"localhost\""),
        ("listen = \"127.0.0.1:1\"\ntoken = \"\"", "`admin.token` is empty"),
    ] {
        let text = format!("[database]\nurl = \"sqlite://x.db\"\n[admin]\n{admin}\n");
        let said = Project::new(folder.path(), &text).run(&["run"]);
        assert_eq!(said.status, 78, "{said:#?}");
        assert!(said.stderr.contains(words), "{said:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_reported() {
    let database = orders(0).await;
    let port = free_port();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let text = format!("[database]\nurl = {:?}\n[admin]\nlisten = \"127.0.0.1:{port}\"\n", database.url);
    let said = Project::new(database.folder(), &text).run(&["run"]);
    assert_eq!(said.status, 1, "{said:#?}");
    assert!(said.stderr.contains("choose another `admin.listen`"), "{said:#?}");
}

/// `docs/src/admin.md` lists every metric, and the relay exports no metric outside of the list.
#[tokio::test(flavor = "multi_thread")]
async fn the_docs_list_every_metric() {
    let database = orders(3).await;
    let relay = Running::start(&database, &section("OrderPlaced", &guest("counts"), ""));
    relay.wait("the metric was not updated", || relay.metric("signalbus_sent_total{signal=\"OrderPlaced\"}") == 3.0);
    let text = relay.get("/metrics").body;
    let page = include_str!("../../docs/src/admin.md");
    for (name, ..) in signalbus::telemetry::meters::METRICS {
        assert!(page.contains(&format!("| `{name}` |")), "docs/src/admin.md does not list {name}");
    }
    assert!(signalbus::telemetry::meters::METRICS.len() >= 25);
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        let known = signalbus::telemetry::meters::METRICS.iter().any(|(known, ..)| *known == name);
        assert!(known, "{name} is not in the list");
    }
    for name in ["signalbus_sent_total{signal=\"OrderPlaced\"} 3", "signalbus_up{version="] {
        assert!(text.contains(name), "{name}: {text}");
    }
}

/// The dashboard refers only to metrics that exist.
#[test]
fn the_grafana_dashboard_uses_existing_metrics() {
    let dashboard: serde_json::Value = serde_json::from_str(include_str!("../../host/grafana.json")).unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for word in words.filter(|word| word.starts_with("signalbus_")) {
                let name = word.strip_suffix("_bucket").unwrap_or(word);
                let known = signalbus::telemetry::meters::METRICS.iter().any(|(known, ..)| *known == name);
                assert!(known, "{name} is not a metric");
                asked += 1;
            }
        }
    }
    assert!(asked >= 20, "{asked}");
}
