//! Plugin swaps while signals are sent.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::harness::database::Database;
use crate::harness::guest;
use crate::harness::relay::{Running, plugin_file, replace, replace_by_edition, section};
use crate::harness::{PATIENCE, pause};

async fn insert(database: &Database, id: u32) {
    database.run(&format!("INSERT INTO order_placed VALUES ({id}, 'c', 'p')")).await;
}

fn digest(relay: &Running) -> String {
    relay.status_of("OrderPlaced")["plugin"]["digest"].as_str().unwrap().to_owned()
}

fn fates(relay: &Running) -> Vec<String> {
    let status = relay.status_of("OrderPlaced");
    let history = status["plugin"]["history"].as_array().unwrap();
    history.iter().map(|tenure| tenure["fate"].as_str().unwrap().to_owned()).collect()
}

async fn until_sent(database: &Database, relay: &Running) {
    let begun = std::time::Instant::now();
    while database.waiting().await > 0 {
        assert!(begun.elapsed() < PATIENCE, "{}", relay.witness.text());
        tokio::time::sleep(pause(begun)).await;
    }
}

async fn start(first: &str, more: &str) -> (Database, Running, std::path::PathBuf) {
    let database = Database::sqlite().await;
    database.orders(0).await;
    let plugin = plugin_file(&database, first);
    let relay = Running::start(&database, &section("OrderPlaced", &plugin, more));
    (database, relay, plugin)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_sends_the_next_batch() {
    let (database, relay, plugin) = start("sends", "").await;
    insert(&database, 1).await;
    until_sent(&database, &relay).await;
    let before = digest(&relay);
    replace(&plugin, "counts");
    relay.wait("the plugin was not swapped", || digest(&relay) != before);
    insert(&database, 2).await;
    until_sent(&database, &relay).await;
    assert_eq!(relay.witness.order(), ["OrderPlaced:2"]);
    assert_eq!(fates(&relay), ["replaced", "current"]);
    assert_eq!(relay.metric("signalbus_plugin_swaps_total{signal=\"OrderPlaced\",result=\"done\"}"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_load_changes_nothing() {
    let (database, relay, plugin) = start("counts", "").await;
    let before = digest(&relay);
    let component = std::fs::read(guest("sends")).unwrap();
    let bad: [(&[u8], &str); 2] =
        [(b"no component", "not a WebAssembly component"), (&component[..component.len() / 2], "does not compile")];
    for (before, (bytes, words)) in bad.into_iter().enumerate() {
        std::fs::write(&plugin, bytes).unwrap();
        relay.witness.wait_until(words);
        relay.wait("the refused file is not in the history", || {
            fates(&relay).iter().filter(|fate| *fate == "refused").count() > before
        });
    }
    for (guest, words) in [("opens_socket", "grants.tcp"), ("signalbus_test_unknown_version", "speaks signalbus:plugin 0.1.x")] {
        replace(&plugin, guest);
        relay.witness.wait_until(words);
    }
    assert_eq!(digest(&relay), before);
    insert(&database, 1).await;
    until_sent(&database, &relay).await;
    assert_eq!(relay.witness.order(), ["OrderPlaced:1"]);
    assert_eq!(relay.metric("signalbus_plugin_swaps_total{signal=\"OrderPlaced\",result=\"refused\"}"), 4.0);
    assert_eq!(relay.metric("signalbus_plugin_denied_total{signal=\"OrderPlaced\",capability=\"grants.tcp\"}"), 1.0);
    // A repaired file is loaded.
    replace(&plugin, "sends");
    relay.wait("the plugin was not swapped", || digest(&relay) != before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_fails_at_once_is_rolled_back() {
    for bad in ["traps", "answers_too_few", "misconfigured", "rejects"] {
        let (database, relay, plugin) = start("counts", "[signals.OrderPlaced.retry.backoff]\nfirst = \"50ms\"").await;
        insert(&database, 1).await;
        until_sent(&database, &relay).await;
        let good = digest(&relay);
        replace(&plugin, bad);
        relay.wait("the plugin was not swapped", || digest(&relay) != good);
        let mut id = 2;
        while digest(&relay) != good {
            assert!(id < 50, "{bad}: {}", relay.witness.text());
            insert(&database, id).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            id += 1;
        }
        assert_eq!(fates(&relay), ["replaced", "rolled_back", "current"], "{bad}");
        assert_eq!(relay.metric("signalbus_plugin_rollbacks_total{signal=\"OrderPlaced\"}"), 1.0);
        until_sent(&database, &relay).await;
        assert_eq!(digest(&relay), good);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_outage_does_not_roll_back() {
    let (database, relay, plugin) = start("counts", "[signals.OrderPlaced.settings]\nafter_ms = 20").await;
    insert(&database, 1).await;
    until_sent(&database, &relay).await;
    let good = digest(&relay);
    replace(&plugin, "unavailable");
    relay.wait("the plugin was not swapped", || digest(&relay) != good);
    insert(&database, 2).await;
    let outages = "signalbus_outages_total{signal=\"OrderPlaced\",kind=\"unavailable\"}";
    relay.wait("there was no outage", || relay.metric(outages) > 8.0);
    assert_eq!(fates(&relay), ["replaced", "current"]);
    assert_eq!(relay.get("/readyz").status, 503);
    assert_eq!(database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'retry'").await, 0);
    replace(&plugin, "counts");
    until_sent(&database, &relay).await;
    relay.wait_ready();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_swaps_and_rolls_back() {
    let (_database, relay, plugin) = start("sends", "").await;
    let first = digest(&relay);
    let said = relay.project.run(&["plugin", "rollback", "OrderPlaced"]);
    assert_eq!(said.status, 1, "{said:#?}");
    assert!(said.stderr.contains("has no previous plugin generation"), "{said:#?}");
    replace(&plugin, "counts");
    let said = relay.project.ok(&["plugin", "swap", "OrderPlaced"]);
    let second = digest(&relay);
    assert_ne!(first, second);
    assert_eq!(said, format!("OrderPlaced now uses {second}\n"));
    let said = relay.project.ok(&["plugin", "rollback", "OrderPlaced", "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap()["digest"], first);
    assert_eq!(digest(&relay), first);
    let said = relay.project.run(&["plugin", "swap", "OrderPlcaed"]);
    assert_eq!(said.status, 64, "{said:#?}");
    std::fs::write(&plugin, "rubbish").unwrap();
    let said = relay.project.run(&["plugin", "swap", "OrderPlaced"]);
    assert_eq!(said.status, 1, "{said:#?}");
    assert!(said.stderr.contains("not a WebAssembly component"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_without_a_relay_is_reported() {
    let database = Database::sqlite().await;
    database.orders(0).await;
    let mut relay = Running::start(&database, &section("OrderPlaced", &guest("sends"), ""));
    relay.stop();
    let said = relay.project.run(&["plugin", "swap", "OrderPlaced"]);
    assert_eq!(said.status, 69, "{said:#?}");
    assert!(said.stderr.contains("is `signalbus run` running?"), "{said:#?}");
}

/// The backlog's attempts are not used up meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_always_fails_is_paused_until_replaced() {
    const ROWS: u32 = 3000;
    let database = Database::sqlite().await;
    database.orders(ROWS).await;
    let plugin = plugin_file(&database, "traps");
    let more = "[signals.OrderPlaced.retry.backoff]\nfirst = \"100ms\"\nmax = \"100ms\"";
    let relay = Running::spawn(&database, &section("OrderPlaced", &plugin, more), "");
    relay.witness.wait_until("the plugin fails: ");
    relay.wait("the relay is still ready", || relay.request("GET", "/readyz", "", "").is_ok_and(|answer| answer.status == 503));
    let tried = database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'retry' AND attempts > 0").await;
    assert!((1..200).contains(&tried), "{tried}");
    let said = tokio::task::block_in_place(|| relay.project.run(&["flushmany"]));
    assert_eq!(said.status, 1, "{said:#?}");
    assert!(said.stderr.contains("signal type \"OrderPlaced\": plugin failed: "), "{said:#?}");
    replace(&plugin, "counts");
    until_sent(&database, &relay).await;
    assert_eq!(database.number("SELECT count(*) FROM signalbus_hold WHERE state = 'dead'").await, 0);
    assert_eq!(relay.witness.all_sent(ROWS), 0, "sent twice");
}

/// Two generations take turns under load.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_swaps_lose_nothing_and_send_nothing_twice() {
    const SWAPS: u32 = 1000;
    let (database, relay, plugin) = start("counts", "burst_count = 50").await;
    let resident = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let mut rows = 0;
    let mut early = 0;
    for swap in 0..SWAPS {
        if swap % 5 == 0 {
            let ids: Vec<String> = (rows + 1..=rows + 50).map(|id| format!("({id}, 'c', 'p')")).collect();
            database.run(&format!("INSERT INTO order_placed VALUES {}", ids.join(", "))).await;
            rows += 50;
        }
        replace(&plugin, if swap % 2 == 0 { "counts_too" } else { "counts" });
        assert_eq!(relay.post("/api/v1/signals/OrderPlaced/plugin").status, 200, "{}", relay.witness.text());
        if swap == SWAPS / 2 {
            early = resident();
        }
    }
    until_sent(&database, &relay).await;
    let late = resident();
    assert_eq!(relay.witness.all_sent(rows), 0, "sent twice");
    assert!(relay.metric("signalbus_plugin_swaps_total{signal=\"OrderPlaced\",result=\"done\"}") >= f64::from(SWAPS) - 1.0);
    assert!(relay.metric("signalbus_plugin_generations") <= 3.0);
    assert!(late < early + 10_000, "{early} kB became {late} kB");
}

/// Each batch takes many calls, and swaps happen between them.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_sent_by_one_generation() {
    const SWAPS: u32 = 30;
    let (database, relay, plugin) = start("counts_one", "burst_count = 40\n[signals.OrderPlaced.settings]\ndelay_ms = 1").await;
    let source = database.series(700);
    for swap in 1..=SWAPS {
        database.run(&format!("INSERT INTO order_placed SELECT {swap} * 1000 + i, 'c', 'p' FROM {source}")).await;
        relay.witness.wait_for(swap as usize * 600 - 400);
        replace_by_edition(&plugin, "counts_one", swap);
        assert_eq!(relay.post("/api/v1/signals/OrderPlaced/plugin").status, 200, "{}", relay.witness.text());
    }
    until_sent(&database, &relay).await;
    let mut batches: HashMap<String, HashSet<String>> = HashMap::new();
    let mut generations = HashSet::new();
    let text = relay.witness.text();
    for line in text.lines().filter(|line| line.contains("counted")) {
        let field = |name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("no {name} in {line}"));
            rest.split(' ').next().unwrap_or_default().trim_matches('"').to_owned()
        };
        batches.entry(field("batch")).or_default().insert(field("generation"));
        generations.insert(field("generation"));
    }
    assert!(batches.values().all(|generations| generations.len() == 1), "{batches:?}");
    assert!(batches.len() >= 500, "{}", batches.len());
    assert!(generations.len() as u32 > SWAPS * 2 / 3, "{}", generations.len());
}
