//! The same plugin in every language: what it costs to load, instantiate, call and keep in memory.
//! With `SIGNALBUS_README` set, the table in `docs/src/plugins.md` is rewritten.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a measurement that cannot go on ends, and its figures are for people"
)]

#[path = "../harness/mod.rs"]
mod harness;
mod report;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use report::Report;
use signalbus::message::{Message, Publisher, Publishing, PublishingInOrder};
use signalbus::plugin::{Connections, Engine, Grants, Limits, Plugin, PluginSpec, Sender as _};
use signalbus::signal::{Column, Outcome, Signal, SignalType, Value};
use tokio_util::sync::CancellationToken;

const LANGUAGES: [&str; 8] = ["rust", "c", "cpp", "zig", "go", "python", "javascript", "typescript"];
const ROWS: usize = 1000;
/// The number of live instances from which the memory of one is computed.
const INSTANCES: usize = 16;

/// The figures of one language, in the order of the columns of the table.
const FIGURES: [(&str, &str); 6] = [
    ("component", "KiB"),
    ("compile", "ms"),
    ("load again", "ms"),
    ("fresh instance and empty call", "µs"),
    ("a row in a batch of 1,000", "µs"),
    ("private memory of an instance", "KiB"),
];

/// A bus that accepts everything at once, or one that never answers.
struct Bus {
    answers: bool,
}

impl Publisher for Bus {
    fn publish(&self, messages: Vec<Message>) -> Publishing<'_> {
        if self.answers {
            Box::pin(std::future::ready(Ok(vec![Outcome::Sent; messages.len()])))
        } else {
            Box::pin(std::future::pending())
        }
    }

    fn publish_in_order(&self, runs: Vec<Vec<Message>>) -> PublishingInOrder<'_> {
        if self.answers {
            let receipts = runs.iter().map(|run| vec![Ok(Outcome::Sent); run.len()]).collect();
            Box::pin(std::future::ready(Ok(receipts)))
        } else {
            Box::pin(std::future::pending())
        }
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Ok(language) = std::env::var("SIGNALBUS_BENCH_LANGUAGE") {
        let figures = runtime.block_on(measure(&language));
        println!("{}", serde_json::to_string(&figures).unwrap());
        return;
    }
    let mut report = Report::default();
    let mut table = vec![];
    for language in LANGUAGES {
        let figures = in_a_process_of_its_own(language);
        for ((name, unit), value) in FIGURES.iter().zip(&figures) {
            report.add(&format!("{language}: {name}"), vec![*value], unit, "");
        }
        table.push((language, figures));
    }
    report.write();
    if std::env::var_os("SIGNALBUS_README").is_some() {
        write_table(&table);
    }
}

fn in_a_process_of_its_own(language: &str) -> Vec<f64> {
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own).env("SIGNALBUS_BENCH_LANGUAGE", language).output().unwrap();
    assert!(output.status.success(), "{language}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn measure(language: &str) -> Vec<f64> {
    let path = harness::target().join(format!("plugins/{language}.wasm"));
    let size = std::fs::metadata(&path).unwrap_or_else(|_| panic!("run `make plugins` first")).len() as f64;
    let cache = tempfile::TempDir::new().unwrap();
    let (_, compile) = load(&path, cache.path(), true).await;
    let (plugin, again) = load(&path, cache.path(), true).await;
    let signal_type = SignalType {
        name: "OrderPlaced".to_owned(),
        columns: ["id", "customer", "total", "photo", "placed", "note"].map(column).to_vec(),
        attributes: vec![],
    };
    let never = CancellationToken::new();
    let batch: Vec<Signal> = (0..ROWS).map(signal).collect();
    let empty = median(200, async || plugin.send(&signal_type, &[], &never).await.unwrap()).await;
    let full = median(30, async || {
        let outcomes = plugin.send(&signal_type, &batch, &never).await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Sent), "{outcomes:?}");
        outcomes
    })
    .await;
    let (silent, _) = load(&path, cache.path(), false).await;
    let before = resident();
    let one = &batch[..1];
    let waiting = join_all((0..INSTANCES).map(|_| silent.send(&signal_type, one, &never)));
    let settled = tokio::time::timeout(std::time::Duration::from_secs(5), waiting).await;
    assert!(settled.is_err(), "the silent bus answered");
    // Dropped instances return their memory at once, so it is measured while they wait.
    let held = tokio::spawn({
        let (signal_type, one, never) = (signal_type.clone(), one.to_vec(), never.clone());
        async move { join_all((0..INSTANCES).map(|_| silent.send(&signal_type, &one, &never))).await }
    });
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let private = (resident().saturating_sub(before)) as f64 / INSTANCES as f64;
    held.abort();
    vec![size / 1024.0, compile * 1e3, again * 1e3, empty * 1e6, full * 1e6 / ROWS as f64, private]
}

/// Loads a plugin with a new engine, as a relay does at its start; returns the seconds it took.
async fn load(path: &Path, cache: &Path, answers: bool) -> (Plugin, f64) {
    let connections = Connections::any(Arc::new(Bus { answers }));
    let settings = [("connection", "bus"), ("destination", "orders")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let grants = Grants { settings: settings.to_vec(), ..Grants::default() };
    let signal_type = "OrderPlaced".to_owned();
    let limits = Limits::default();
    let spec = PluginSpec { signal_type, path: path.to_owned(), grants, connections, limits, ..PluginSpec::default() };
    let begun = Instant::now();
    let engine = Engine::new(Some(cache.to_owned()), signalbus::plugin::Compiler::InProcess).unwrap();
    let plugin = Plugin::load(&engine, &spec).await.unwrap();
    (plugin, begun.elapsed().as_secs_f64())
}

fn column(name: &str) -> Column {
    Column { name: name.to_owned(), db_type: "text".to_owned() }
}

/// About 200 bytes.
fn signal(index: usize) -> Signal {
    let values = vec![
        Value::Int64(index as i64 + (1 << 53)),
        Value::Text(format!("Zażółć gęślą jaźń {index}")),
        Value::Decimal("12345.67".to_owned()),
        Value::Bytes(vec![index as u8; 64]),
        Value::Timestamp("2026-02-28T23:59:59.123456Z".to_owned()),
        Value::Text("x".repeat(64)),
    ];
    Signal { id: format!("Order:{index}"), key: index.to_string(), order_key: String::new(), attempt: 1, values }
}

/// The median of the seconds that `run` takes.
async fn median<T>(runs: usize, mut run: impl AsyncFnMut() -> T) -> f64 {
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let begun = Instant::now();
        run().await;
        times.push(begun.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

/// The private memory of this process, in kilobytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Writes the table between its markers in the page about plugins.
fn write_table(table: &[(&str, Vec<f64>)]) {
    const BEGIN: &str = "<!-- written by `make figures` -->\n";
    const END: &str = "<!-- end -->\n";
    let mut text = String::from(
        "| language | component | compiled in | loaded again in | fresh instance, empty call | per row | memory of an instance |\n",
    );
    text += "|---|---|---|---|---|---|---|\n";
    for (language, figures) in table {
        let [size, compile, again, empty, row, memory] = figures[..] else { panic!("{figures:?}") };
        let name = match *language {
            "cpp" => "C++".to_owned(),
            "javascript" => "JavaScript".to_owned(),
            "typescript" => "TypeScript".to_owned(),
            name => name[..1].to_uppercase() + &name[1..],
        };
        let amount = |kib: f64| if kib >= 1024.0 { format!("{:.1} MiB", kib / 1024.0) } else { format!("{kib:.0} KiB") };
        let time = |ms: f64| if ms >= 1000.0 { format!("{:.1} s", ms / 1000.0) } else { format!("{ms:.0} ms") };
        let (compile, again, memory) = (time(compile), time(again), amount(memory));
        let empty = if empty >= 1000.0 { format!("{:.1} ms", empty / 1000.0) } else { format!("{empty:.0} µs") };
        text += &format!("| {name} | {} | {compile} | {again} | {empty} | {row:.1} µs | {memory} |\n", amount(size));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/plugins.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the marker");
    let (_, after) = rest.split_once(END).expect("the page has the end marker");
    std::fs::write(file, format!("{before}{BEGIN}{text}{END}{after}")).unwrap();
}
