//! The sandbox: whatever a plugin does delays its own signal type at most, and affects nothing else.

use std::fmt::Write as _;

use crate::harness::command::{Project, Said};
use crate::harness::database::Database;
use crate::harness::guest;
use crate::harness::relay::{Running, section};
use sqlx::{AssertSqlSafe, Row as _};

/// Two signal types: `OrderPlaced` with the plugin under test, `Bystander` with one that sends.
struct Trial {
    database: Database,
    project: Project,
}

impl Trial {
    /// `more` are further lines of `[signals.OrderPlaced]`.
    async fn of(plugin: &str, rows: u32, more: &str) -> Self {
        let defaults = [("timeout", "60s"), ("memory", "8MiB")].into_iter().filter(|(key, _)| !more.contains(key));
        let more = defaults.map(|(key, value)| format!("{key} = '{value}'\n")).collect::<String>() + more;
        let database = Database::sqlite().await;
        database.orders(rows).await;
        database.run("CREATE TABLE bystander (id INTEGER PRIMARY KEY); INSERT INTO bystander VALUES (1), (2), (3)").await;
        let mut config = format!("[database]\nurl = {:?}\n", database.url);
        let sends = guest("sends");
        let _ = writeln!(config, "[signals.Bystander]\nplugin = {sends:?}");
        let _ = writeln!(config, "[signals.OrderPlaced]\nplugin = {plugin:?}\n{more}");
        let project = Project::new(database.folder(), &config);
        Self { database, project }
    }

    async fn of_guest(name: &str, rows: u32, more: &str) -> Self {
        Self::of(guest(name).to_str().unwrap(), rows, more).await
    }

    /// Flushes, and asserts that the other signal type is sent, and nothing stays claimed.
    async fn flush(&self) -> Said {
        let said = self.project.run(&["flush", "-w", "0"]);
        assert_eq!(self.database.number("SELECT count(*) FROM bystander").await, 0, "{said:#?}");
        assert_eq!(self.database.number("SELECT count(*) FROM signalbus_claim WHERE owner <> ''").await, 0, "{said:#?}");
        assert!(!said.stderr.contains("panicked at host/"), "{said:#?}");
        said
    }

    async fn left(&self) -> i64 {
        self.database.waiting().await
    }

    /// Returns the key, the attempts and the reason of each row of a side table.
    async fn reasons(&self, state: &str) -> Vec<(String, i64, String)> {
        let mut connection = self.database.sqlite_connection().await;
        let query = format!(
            "SELECT signal_key, attempts, reason FROM signalbus_hold WHERE state = '{state}' ORDER BY CAST(signal_key AS INTEGER)"
        );
        let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }

    /// Asserts that all rows remain, each deferred once for a reason that contains `words`.
    async fn deferred(&self, rows: usize, words: &str) {
        let reasons = self.reasons("retry").await;
        assert_eq!((self.left().await, reasons.len()), (i64::try_from(rows).unwrap(), rows), "{reasons:?}");
        for (_, attempts, reason) in reasons {
            assert!(attempts == 1 && reason.contains(words), "attempt {attempts}: {reason}");
        }
        assert_eq!(self.reasons("dead").await, []);
    }

    /// Asserts that all rows are dead letters, for a reason that contains `words`.
    async fn buried(&self, rows: usize, words: &str) {
        let reasons = self.reasons("dead").await;
        assert_eq!((self.left().await, reasons.len()), (0, rows), "{reasons:?}");
        for (_, attempts, reason) in reasons {
            assert!(attempts == 1 && reason.contains(words), "attempt {attempts}: {reason}");
        }
        assert_eq!(self.reasons("retry").await, []);
    }

    /// Asserts that this many rows remain, and nothing was charged.
    async fn untouched(&self, rows: i64) {
        assert_eq!(self.left().await, rows);
        assert_eq!(self.reasons("retry").await, []);
        assert_eq!(self.reasons("dead").await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sent_and_skipped_rows_are_deleted() {
    for (name, told) in [
        ("sends", "sent 8, deferred 0, buried 0\n"),
        ("sends_one", "sent 8, deferred 0, buried 0\n"),
        ("noop", "sent 8, deferred 0, buried 0\n"),
        ("echoes", "sent 8, deferred 0, buried 0\n"),
        ("counts", "sent 8, deferred 0, buried 0\n"),
        ("skips", "sent 3, skipped 5, deferred 0, buried 0\n"),
    ] {
        let trial = Trial::of_guest(name, 5, "").await;
        let said = trial.flush().await;
        assert_eq!((said.status, said.stdout.as_str()), (0, told), "{name}: {said:#?}");
        trial.untouched(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_rows_become_dead_letters() {
    let trial = Trial::of_guest("rejects", 5, "").await;
    assert_eq!(trial.flush().await.status, 1);
    trial.buried(5, "reject").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_waits_as_long_as_the_plugin_says() {
    let trial = Trial::of_guest("retries", 5, "[signals.OrderPlaced.settings]\nafter_ms = 3600000").await;
    assert_eq!(trial.flush().await.status, 1);
    trial.deferred(5, "").await;
    let soonest = "SELECT min(due_at) - unixepoch() * 1000 FROM signalbus_hold WHERE state = 'retry'";
    assert!((3_500_000..=3_601_000).contains(&trial.database.number(soonest).await));
    assert_eq!(trial.project.ok(&["flush", "-w", "0"]), "sent 0, deferred 0, buried 0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_charges_nothing() {
    for (name, status) in [("unavailable", 69), ("misconfigured", 78)] {
        let trial = Trial::of_guest(name, 5, "").await;
        let said = trial.flush().await;
        assert_eq!((said.status, said.stdout.as_str()), (status, "sent 3, deferred 0, buried 0\n"), "{said:#?}");
        trial.untouched(5).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_is_a_retry_with_the_panic_message() {
    for name in ["traps", "traps_one"] {
        let trial = Trial::of_guest(name, 3, "").await;
        let said = trial.flush().await;
        assert_eq!((said.status, said.stdout.as_str()), (1, "sent 3, deferred 3, buried 0\n"), "{said:#?}");
        trial.deferred(3, "panicked at ").await;
        for (key, _, reason) in trial.reasons("retry").await {
            assert!(
                reason.starts_with("plugin panicked at ") && reason.contains(&format!("poisoned by \"OrderPlaced:{key}~")),
                "{reason}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_signal_is_charged_alone() {
    for name in ["traps", "traps_one", "traps_alone"] {
        let trial = Trial::of_guest(name, 100, "[signals.OrderPlaced.settings]\npoison = 'poison'").await;
        trial.database.run("UPDATE order_placed SET payload = 'poison' WHERE id = 42").await;
        let said = trial.flush().await;
        assert_eq!((said.status, said.stdout.as_str()), (1, "sent 102, deferred 1, buried 0\n"), "{said:#?}");
        trial.deferred(1, "poisoned by \"OrderPlaced:42~").await;
        assert_eq!(trial.reasons("retry").await[0].0, "42");
    }
}

/// State that a signal leaves in an instance is not charged to the signals after it.
#[tokio::test(flavor = "multi_thread")]
async fn no_signal_is_charged_for_an_earlier_one() {
    for order in ["", "order_by = ['id']"] {
        let trial = Trial::of_guest("remembers", 10, order).await;
        trial.database.run("UPDATE order_placed SET payload = 'break' WHERE id = 3").await;
        let said = trial.flush().await;
        assert_eq!((said.status, said.stdout.as_str()), (0, "sent 13, deferred 0, buried 0\n"), "{said:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_does_not_quote_output_about_another_signal() {
    let trial = Trial::of_guest("remembers", 2, "timeout = '1s'\norder_by = ['id']").await;
    trial.database.run("UPDATE order_placed SET payload = CASE id WHEN 1 THEN 'mutter' ELSE 'spin' END").await;
    assert_eq!(trial.flush().await.stdout, "sent 4, deferred 1, buried 0\n");
    assert_eq!(trial.reasons("retry").await, [("2".into(), 1, "plugin exceeded its deadline of 1s".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn order_stops_at_a_poisonous_signal() {
    let more = "order_by = ['id']\nburst_count = 30\nretry.backoff = { first = '1h', max = '1h' }\n\
                [signals.OrderPlaced.settings]\npoison = 'poison'";
    let trial = Trial::of_guest("traps", 100, more).await;
    trial.database.run("UPDATE order_placed SET payload = 'poison' WHERE id = 42").await;
    assert_eq!(trial.flush().await.stdout, "sent 44, deferred 1, buried 0\n");
    assert_eq!(trial.database.number("SELECT min(id) FROM order_placed").await, 42);
    assert_eq!(trial.left().await, 59);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_signal_finally_becomes_a_dead_letter() {
    let more = "[signals.OrderPlaced.retry]\nmax_attempts = 2\nbackoff = { first = '1ms', max = '1ms' }\n\
                [signals.OrderPlaced.settings]\npoison = 'poison'";
    let trial = Trial::of_guest("traps", 10, more).await;
    trial.database.run("UPDATE order_placed SET payload = 'poison' WHERE id = 4").await;
    while trial.left().await > 0 {
        assert_eq!(trial.flush().await.status, 1);
    }
    let letters = trial.reasons("dead").await;
    assert_eq!((letters.len(), letters[0].0.as_str(), letters[0].1), (1, "4", 2));
    let reason = &letters[0].2;
    assert!(reason.contains("poisoned by \"OrderPlaced:4~") && reason.ends_with("\" (attempt 2 of 2)"), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_does_not_answer_is_stopped() {
    for name in ["spins", "sleeps"] {
        let trial = Trial::of_guest(name, 2, "timeout = '1s'").await;
        let said = trial.flush().await;
        assert_eq!((said.status, said.stdout.as_str()), (1, "sent 3, deferred 2, buried 0\n"), "{said:#?}");
        trial.deferred(2, "plugin exceeded its deadline of 1s").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_makes_the_plugin_spin_is_charged_alone() {
    let trial = Trial::of_guest("outcomes", 20, "timeout = '2s'").await;
    trial.database.run("UPDATE order_placed SET payload = CASE id WHEN 7 THEN 'spin' ELSE 'sent' END").await;
    assert_eq!(trial.flush().await.stdout, "sent 22, deferred 1, buried 0\n");
    trial.deferred(1, "plugin exceeded its deadline of 2s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_that_hang_do_not_hold_up_another_type() {
    let database = Database::sqlite().await;
    let mut config = format!("[database]\nurl = {:?}\nmax_connections = 4\n", database.url);
    for (name, plugin) in [("hangs_a", "sleeps"), ("hangs_b", "spins"), ("hangs_c", "sleeps"), ("works", "counts")] {
        database
            .run(&format!("CREATE TABLE {name} (id INTEGER PRIMARY KEY); INSERT INTO {name} VALUES (1), (2), (3), (4), (5)"))
            .await;
        let _ = writeln!(config, "[signals.{name}]\nplugin = {:?}\nburst_count = 1\ntimeout = '20s'", guest(plugin));
    }
    let project = Project::new(database.folder(), &config);
    let witness = crate::harness::witness::Witness::new(database.folder());
    let begun = std::time::Instant::now();
    let mut flush = project.command(&["flushmany"]).stderr(witness.stderr()).spawn().unwrap();
    witness.wait_for(5);
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}: the type waited for the others", begun.elapsed());
    flush.kill().unwrap();
    flush.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded() {
    let trial = Trial::of_guest("eats_memory", 2, "").await;
    assert_eq!(trial.flush().await.status, 1);
    trial.deferred(2, "plugin exceeded its memory limit of 8 MiB").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_resources_and_arguments_are_bounded() {
    for (name, words) in [("hoards", "plugin holds more than 1000 host resources at once"), ("repeats_itself", "too much data")] {
        let trial = Trial::of_guest(name, 1, "").await;
        assert_eq!(trial.flush().await.status, 1, "{name}");
        trial.deferred(1, words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reasons_are_bounded() {
    // First with room for all reasons of a call, then with room for those of a few signals alone.
    for (how, bytes) in [("reject", 300_000), ("reject", 4_000_000), ("retry", 4_000_000), ("unavailable", 4_000_000)] {
        let database = Database::sqlite().await;
        database.orders(200).await;
        let more = format!("[signals.OrderPlaced.settings]\nhow = '{how}'\nbytes = {bytes}");
        let mut relay = Running::start(&database, &section("OrderPlaced", &guest("rambles"), &more));
        let outages = "signalbus_outages_total{signal=\"OrderPlaced\",kind=\"unavailable\"}";
        while database.number("SELECT count(*) FROM signalbus_hold").await < 200 && relay.metric(outages) < 2.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let peak = relay.peak_memory();
        assert_eq!(relay.stop(), Some(0));
        assert!(peak < 400_000, "{how}, {bytes} bytes: the relay took {peak} KiB");
        let stored = database.number("SELECT COALESCE(sum(length(reason)), 0) FROM signalbus_hold").await;
        assert!(stored < 1_100_000, "{how}, {bytes} bytes: {stored} bytes of reasons are stored");
        let text = relay.witness.text();
        assert!(text.contains("ramble ramble") && text.contains("… (cut, "), "{how}, {bytes} bytes");
        assert!(text.len() < 2_200_000, "{how}, {bytes} bytes: {} bytes of log", text.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_has_an_end() {
    let more = format!("[signals.OrderPlaced.settings]\nafter_ms = '{}'", u64::MAX);
    let trial = Trial::of_guest("retries", 1, &more).await;
    assert_eq!(trial.flush().await.status, 1);
    let days = "SELECT (due_at / 1000 - unixepoch()) / 86400 FROM signalbus_hold WHERE state = 'retry'";
    assert!((29..=30).contains(&trial.database.number(days).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_cannot_ask_again_and_again_at_once() {
    let database = Database::sqlite().await;
    database.orders(5).await;
    let more = "[signals.OrderPlaced.settings]\nafter_ms = 0";
    let mut relay = Running::spawn(&database, &section("OrderPlaced", &guest("unavailable"), more), "");
    relay.witness.wait_until("signal type paused");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let outages = relay.metric("signalbus_outages_total{signal=\"OrderPlaced\",kind=\"unavailable\"}");
    assert!((1.0..10.0).contains(&outages), "{outages} calls in two seconds");
    assert_eq!(relay.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_number_of_outcomes_acknowledges_nothing() {
    for (name, batch, single) in [("answers_too_few", 2, 0), ("answers_too_many", 4, 2)] {
        let trial = Trial::of_guest(name, 3, "").await;
        assert_eq!(trial.flush().await.status, 1);
        trial.deferred(3, &format!("the plugin answered {batch} outcomes for 3 signals")).await;
        let trial = Trial::of_guest(name, 1, "").await;
        assert_eq!(trial.flush().await.status, 1);
        trial.deferred(1, &format!("the plugin answered {single} outcomes for 1 signal")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_is_cut_off() {
    for name in ["floods_log", "floods_stdout"] {
        let trial = Trial::of_guest(name, 1, "").await;
        let said = trial.flush().await;
        assert_eq!(said.status, 0, "{}", said.stdout);
        assert!(said.stderr.contains("log records dropped"));
        assert!(said.stderr.len() < 1 << 20, "{} bytes", said.stderr.len());
        trial.untouched(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sends_do_not_flood_the_log() {
    let more = "burst_count = 1\n[signals.OrderPlaced.settings]\nrecords = 1000\nbytes = 250";
    let trial = Trial::of_guest("floods_log", 200, more).await;
    let begun = std::time::Instant::now();
    let said = trial.flush().await;
    let seconds = begun.elapsed().as_secs() as usize + 1;
    assert_eq!(said.status, 0, "{}", said.stdout);
    assert!(said.stderr.len() < (33 << 20) + (4 << 20) * seconds, "{} bytes in {seconds} s", said.stderr.len());
    let told = said.stderr.matches("log records dropped").count();
    // Unless the machine was so slow that nothing had to be dropped.
    let everything = said.stderr.len() > 50_000_000;
    assert!((1..20).contains(&told) || told == 0 && everything, "told {told} times in {seconds} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_record_is_cut() {
    let more = "memory = '64MiB'\n[signals.OrderPlaced.settings]\nrecords = 1\nbytes = 20000000";
    let trial = Trial::of(guest("floods_log").to_str().unwrap(), 1, more).await;
    let said = trial.flush().await;
    assert!(said.stderr.len() < 20_000 && said.stderr.contains("… (cut, 20000000 bytes)"), "{} bytes", said.stderr.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_forged() {
    let trial = Trial::of_guest("forges", 1, "").await;
    let said = trial.flush().await;
    for args in [&["dead", "list"][..], &["dead", "show", "1"], &["--log-format", "json", "dead", "list", "--json"]] {
        let shown = trial.project.run(args);
        for text in [&said.stderr, &said.stdout, &shown.stdout, &shown.stderr] {
            assert!(text.lines().all(|line| !line.starts_with("1970")), "{text}");
            let hidden = |c: char| c != '\n' && c.is_control() || matches!(c, '\u{2028}' | '\u{202e}');
            assert!(!text.contains(hidden), "{text:?}");
        }
    }
    assert_eq!(said.stderr.matches("forged").count(), 6, "{}", said.stderr);
    trial.database.run("DELETE FROM signalbus_hold").await;
    let json = trial.project.run(&["--log-format", "json", "flush", "-w", "0"]);
    assert!(json.stderr.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{}", json.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_exits_does_not_end_the_relay() {
    for code in ["0", "1"] {
        let trial = Trial::of_guest("exits", 2, &format!("[signals.OrderPlaced.settings]\ncode = {code}")).await;
        assert_eq!(trial.flush().await.status, 1);
        trial.deferred(2, &format!("plugin called exit({code})")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_sees_nothing_of_the_process() {
    let trial = Trial::of_guest("reads_environment", 1, "").await;
    assert_eq!(trial.flush().await.status, 1);
    let letters = trial.reasons("dead").await;
    let seen: serde_json::Value = serde_json::from_str(&letters[0].2).unwrap();
    for empty in ["variables", "arguments", "readable"] {
        let value = &seen[empty];
        assert!(
            value == 0 || value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty),
            "{seen}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_reaches_only_the_plugin_it_is_configured_for() {
    let more = "[signals.OrderPlaced.settings]\ngreeting = 'hello'\n[signals.OrderPlaced.secrets]\nkey = 'hidden treasure'";
    let trial = Trial::of_guest("secrets", 1, more).await;
    let said = trial.flush().await;
    assert!(said.stderr.contains("present=true greeted=true"), "{said:#?}");
    let trial = Trial::of_guest("secrets", 1, "").await;
    assert!(trial.flush().await.stderr.contains("present=false greeted=false"));
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_needs_a_granted_connection() {
    let trial = Trial::of_guest("publishes", 2, "").await;
    let said = trial.flush().await;
    assert_eq!(said.status, 78, "{said:#?}");
    assert!(said.stderr.contains("signal type \"OrderPlaced\": plugin misconfigured: "), "{said:#?}");
    trial.untouched(2).await;
}

/// Asserts that a plugin does not load, nothing is sent at all, and the output contains `words`.
async fn refused(plugin: &str, more: &str, words: &[&str]) {
    let trial = Trial::of(plugin, 2, more).await;
    for args in [&["flush", "-w", "0"][..], &["check"]] {
        let said = trial.project.run(args);
        let told = format!("{}{}", said.stdout, said.stderr);
        assert_eq!(said.status, 78, "{said:#?}");
        let place = "error: signalbus.toml:5:1: signal type \"OrderPlaced\": plugin \"";
        // It may be told before that compiling takes a while; nothing else.
        let error = told.lines().find(|line| !line.contains("compiling plugin")).unwrap_or_default();
        assert!(error.starts_with(place), "{said:#?}");
        for words in words {
            assert!(told.contains(words), "{words}: {said:#?}");
        }
    }
    trial.untouched(2).await;
    assert_eq!(trial.database.number("SELECT count(*) FROM bystander").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_is_refused() {
    let plugin = guest("signalbus_test_unknown_version");
    refused(
        plugin.to_str().unwrap(),
        "",
        &["\"signalbus:plugin/bulk-sender@0.9.0\"", "this relay speaks signalbus:plugin 0.1.x"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_import_is_refused() {
    let plugin = guest("signalbus_test_unknown_import");
    refused(plugin.to_str().unwrap(), "", &["which this relay does not provide: build it without them"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_without_its_grant_is_refused() {
    let plugin = guest("opens_socket");
    refused(plugin.to_str().unwrap(), "", &["\"wasi:sockets/tcp@0.2.", "needs \"grants.tcp\"", "add these grants"]).await;
}

/// Returns what a guest with these grants sees when it connects to `address`, and the relay's log.
async fn seen(address: &str, grants: &str) -> (String, String) {
    let more = format!("grants = {{ {grants} }}\n[signals.OrderPlaced.settings]\naddress = '{address}'");
    let trial = Trial::of_guest("opens_socket", 1, &more).await;
    let said = trial.flush().await;
    assert_eq!(said.status, 1, "{said:#?}");
    (trial.reasons("dead").await.remove(0).2, said.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_reach_granted_endpoints_only() {
    let listener = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let granted = format!("tcp = ['127.0.0.1:{port}', 'localhost:{port}', '[::1]:{port}']");
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        let (saw, told) = seen(&format!("{host}:{port}"), &granted).await;
        assert_eq!(saw, "connected", "{told}");
    }
    let elsewhere = format!("tcp = ['smtp.example:587', '127.0.0.1:{}']", port ^ 1);
    for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"] {
        let (saw, told) = seen(&format!("{host}:{port}"), &elsewhere).await;
        assert!(saw.starts_with("refused: "), "{host}: {saw}");
        // These addresses are not valid destinations, and are refused before any check.
        let odd = host == "0.0.0.0" || host.starts_with('[');
        assert!(odd || told.contains("plugin denied a capability that is not granted"), "{host}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_name_opens_no_private_network() {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let name = std::fs::read_to_string("/etc/hostname").unwrap().trim().to_owned();
    let Ok(addresses) = std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), 0)) else { return };
    let ranges: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
    let (saw, told) = seen(&format!("{name}:{port}"), &format!("tcp = ['{name}:{port}']")).await;
    assert!(saw.starts_with("refused: "), "{saw}");
    assert!(told.contains("which is not public: add its range to `grants.networks`"), "{told}");
    let (saw, told) = seen(&format!("{name}:{port}"), &format!("tcp = ['{name}:{port}'], networks = {ranges:?}")).await;
    assert_eq!(saw, "connected", "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_components_are_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        file.to_str().unwrap().to_owned()
    };
    refused(&write("text.wasm", b"(component)"), "", &["is not a WebAssembly component", "wasm32-wasip2"]).await;
    refused(&write("empty.wasm", b""), "", &["is not a WebAssembly component"]).await;
    refused(
        &write("core.wasm", b"\0asm\x01\0\0\0"),
        "",
        &["is a core module, not a component: run `signalbus plugin build` in its project to make a component"],
    )
    .await;
    refused(&write("hollow.wasm", b"\0asm\x0d\0\x01\0"), "", &["exports none of \"signalbus:plugin/sender\""]).await;
    let whole = std::fs::read(guest("sends")).unwrap();
    refused(&write("half.wasm", &whole[..whole.len() / 2]), "", &["does not compile"]).await;
    refused(folder.path().to_str().unwrap(), "", &["cannot be read: "]).await;
    refused("gone.wasm", "", &["gone.wasm\" cannot be read: No such file"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_another_digest_is_refused() {
    let plugin = guest("sends");
    let words = ["has digest \"sha256:", "\"sha256:0123\" is configured: restore the file, or change \"digest\""];
    refused(plugin.to_str().unwrap(), "digest = 'sha256:0123'", &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configured_digest_is_accepted() {
    use sha2::Digest as _;
    let digest: String =
        sha2::Sha256::digest(std::fs::read(guest("sends")).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    let trial = Trial::of_guest("sends", 2, &format!("digest = 'sha256:{digest}'")).await;
    assert_eq!(trial.flush().await.status, 0);
    trial.untouched(0).await;
}
