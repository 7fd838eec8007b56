//! Messages that a bus refuses, among others that it takes.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use super::bus::distinct_rows_of;
use super::command::Project;
use super::database::Database;
use super::relay::section;

/// A way in which a bus refuses a message of the plugin `publish`.
pub struct Refusal<'a> {
    /// Settings of the plugin, which use the columns `customer` and `payload` of an order.
    pub settings: &'a str,
    /// What makes an order good, and what makes it bad: assignments in SQL.
    pub good: &'a str,
    pub bad: &'a str,
    /// Words of the reason for which a bad one becomes a dead letter, with its only attempt.
    pub words: &'a str,
}

/// How many of 2,000 orders are bad. Each way in which a bus refuses is tried with two of them, and `make soak` tries all.
pub const FEW_AND_MANY: [u32; 4] = [1, 2, 6, 100];

const BY_KEY: &str = "order_by = ['id']\norder_key = ['lane']\n";

/// Sends 2,000 orders, some of which their bus refuses, without order or in the order of keys: exactly these
/// become dead letters. `arrived` lists the ids of all messages that the bus has got so far.
pub async fn refusals_cost_only_themselves(
    connection: &str,
    refusal: &Refusal<'_>,
    counts: &[u32],
    arrived: impl AsyncFn() -> Vec<String>,
) {
    let settings = format!("connection = 'bus'\n{}\n[connections.bus]\n{connection}\n", refusal.settings);
    let refusal = Refusal { settings: &settings, ..*refusal };
    refused_by(&super::guest("signalbus_publish"), "connections = ['bus']", &refusal, counts, arrived).await;
}

/// The same for any plugin, with these grants.
pub async fn refused_by(
    plugin: &Path,
    grants: &str,
    refusal: &Refusal<'_>,
    counts: &[u32],
    arrived: impl AsyncFn() -> Vec<String>,
) {
    const ORDERS: u32 = 2000;
    let mut known: HashSet<String> = arrived().await.into_iter().collect();
    let cases: Vec<(u32, &str)> = counts.iter().flat_map(|count| [(*count, ""), (*count, BY_KEY)]).collect();
    let (way, last) = (refusal.bad.len() % (cases.len() / 2), cases.len() - 1);
    let tried = |n: usize| super::is_soak() || n == way || n == last - way;
    for (_, (count, order)) in cases.into_iter().enumerate().filter(|(n, _)| tried(*n)) {
        let database = Database::sqlite().await;
        database.orders(ORDERS).await;
        database.run("ALTER TABLE order_placed ADD COLUMN lane INTEGER; UPDATE order_placed SET lane = id % 400").await;
        let step = ORDERS / count;
        database.run(&format!("UPDATE order_placed SET {}", refusal.good)).await;
        database.run(&format!("UPDATE order_placed SET {} WHERE id % {step} = 7", refusal.bad)).await;
        let more =
            format!("{order}retry.max_attempts = 1\ngrants.{grants}\n[signals.OrderPlaced.settings]\n{}", refusal.settings);
        let sections = section("OrderPlaced", plugin, &more);
        let project = Project::new(database.folder(), &format!("[database]\nurl = {:?}\n{sections}", database.url));
        let begun = Instant::now();
        let said = project.run(&["flush", "-w", "0"]);
        let what = format!("{count} of {}, {order}: {said:#?}", refusal.bad);
        println!("{count} of {}: {:?}", refusal.bad, begun.elapsed());
        let (dead, good): (Vec<u32>, Vec<u32>) = (1..=ORDERS).partition(|id| id % step == 7);
        assert_eq!((said.status, database.waiting().await), (1, 0), "{what}");
        let mut letters = Vec::new();
        for letter in project.run(&["dead", "list", "--json", "--limit", "5000"]).json()["dead_letters"].as_array().unwrap() {
            let (key, reason) = (letter["key"].as_str().unwrap(), letter["reason"].as_str().unwrap());
            assert!(reason.contains(refusal.words), "{reason}: {what}");
            letters.push(key.parse::<u32>().unwrap());
        }
        letters.sort_unstable();
        assert_eq!(letters, dead, "{what}");
        let before = known.clone();
        known.extend(arrived().await);
        let now: Vec<String> = known.difference(&before).cloned().collect();
        let mut good: Vec<String> = good.iter().map(|id| format!("OrderPlaced:{id}")).collect();
        good.sort();
        assert_eq!(distinct_rows_of(now), good, "{what}");
    }
}
