//! The collection: what a plugin or its file can try, and what becomes of its rows. Groups of them run in one relay, beside
//! a neighbour. `docs/src/hostile.md` has the table that this makes of them.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::*;

/// What becomes of the rows of a signal type.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    /// Everything is sent.
    Sent,
    /// They wait for another attempt, for a reason with these words.
    Waits(&'static str),
    /// They are dead letters, for a reason with these words.
    Dead(&'static str),
    /// Nothing was tried, for a reason with these words in the status.
    Paused(&'static str),
    /// The file is not used, for a reason with these words in the status.
    Refused(&'static str),
}

pub(super) use Fate::{Dead, Paused, Refused, Sent, Waits};

/// What the type's plugin is.
pub(super) enum Plugin {
    Guest(&'static str, &'static str),
    /// Further fields of a module, and the body of its function.
    Module(String, String),
    Bytes(Box<dyn Fn() -> Vec<u8> + Send>),
}

pub(super) struct Case {
    /// What it tries, in the words of the table.
    tries: &'static str,
    plugin: Plugin,
    fate: Fate,
}

fn case(tries: &'static str, plugin: Plugin, fate: Fate) -> Case {
    Case { tries, plugin, fate }
}

pub(super) fn acts(tries: &'static str, guest: &'static str, settings: &'static str, fate: Fate) -> Case {
    case(tries, Plugin::Guest(guest, settings), fate)
}

pub(super) fn module(tries: &'static str, more: &str, body: &str, fate: Fate) -> Case {
    case(tries, Plugin::Module(more.to_owned(), body.to_owned()), fate)
}

pub(super) fn bytes(tries: &'static str, bytes: impl Fn() -> Vec<u8> + Send + 'static, fate: Fate) -> Case {
    case(tries, Plugin::Bytes(Box::new(bytes)), fate)
}

pub(super) const TRAPPED: Fate = Waits("plugin trapped: ");
const DEADLINE: Fate = Waits("exceeded its deadline of 2s");

/// An answer with this discriminant, and these numbers behind it.
pub(super) fn answers(discriminant: u32, pointer: &str, length: &str) -> String {
    format!(
        "(i32.store (i32.const 512) (i32.const {discriminant})) (i32.store (i32.const 520) {pointer})
         (i32.store (i32.const 524) {length}) (i32.const 512)"
    )
}

/// An answer of one outcome for each signal, of which all point to one text.
pub(super) fn reasons(pointer: &str, length: &str) -> String {
    format!(
        "(local $n i32) (local $at i32)
         (local.set $at (call $alloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.mul (local.get $signals) (i32.const 32))))
         (loop $next
           (i32.store (i32.add (local.get $at) (i32.mul (local.get $n) (i32.const 32))) (i32.const 3))
           (i32.store offset=8 (i32.add (local.get $at) (i32.mul (local.get $n) (i32.const 32))) {pointer})
           (i32.store offset=12 (i32.add (local.get $at) (i32.mul (local.get $n) (i32.const 32))) {length})
           (local.set $n (i32.add (local.get $n) (i32.const 1)))
           (br_if $next (i32.lt_u (local.get $n) (local.get $signals))))
         {}",
        answers(0, "(local.get $at)", "(local.get $signals)")
    )
}

/// What guests do that are written as others are.
fn guests() -> Vec<Case> {
    vec![
        acts("rejects everything", "rejects", "", Dead("reject")),
        acts("asks for another attempt in 2^64 - 1 ms", "retries", "after_ms = '18446744073709551615'", Waits("")),
        acts("is unavailable, for no time at all", "unavailable", "after_ms = 0", Paused("")),
        acts("says that it is misconfigured", "misconfigured", "", Paused("")),
        acts("panics", "traps", "", Waits("plugin panicked at ")),
        acts("panics, signal by signal", "traps_one", "", Waits("plugin panicked at ")),
        acts("computes for ever", "spins", "", DEADLINE),
        acts("waits for ever", "sleeps", "", DEADLINE),
        acts("takes all the memory that it gets", "eats_memory", "", Waits("exceeded its memory limit of 8 MiB")),
        acts("takes a hundred thousand resources of the relay", "hoards", "", Waits("more than 1000 host resources")),
        acts("passes the same bytes again and again", "repeats_itself", "", Waits("too much data")),
        acts("rejects with reasons of 300 kB", "rambles", "how = 'reject'\nbytes = 300000", Dead("ramble ramble")),
        acts("retries with reasons of 4 MB", "rambles", "how = 'retry'\nbytes = 4000000", Waits("")),
        acts("is unavailable, in 4 MB of words", "rambles", "how = 'unavailable'\nbytes = 4000000", Paused("ramble")),
        acts("answers too few outcomes", "answers_too_few", "", Waits("the plugin answered ")),
        acts("answers too many outcomes", "answers_too_many", "", Waits("the plugin answered ")),
        acts("logs a hundred thousand records", "floods_log", "", Sent),
        acts("logs a record of 2 MB", "floods_log", "records = 1\nbytes = 2000000", Sent),
        acts("writes megabytes to standard output", "floods_stdout", "", Sent),
        acts("writes lines that look like the relay's", "forges", "", Dead("")),
        acts("ends its process, with success", "exits", "code = 0", Waits("plugin called exit(0)")),
        acts("ends its process, with failure", "exits", "code = 1", Waits("plugin called exit(1)")),
        acts("reads the environment, arguments and files", "reads_environment", "", Dead("")),
        acts("opens a socket without a grant", "opens_socket", "address = '127.0.0.1:1'", Refused("needs \"grants.tcp\"")),
        acts("publishes without a grant", "publishes", "", Paused("")),
        acts("imports what no relay has", "signalbus_test_unknown_import", "", Refused("does not provide")),
        acts(
            "is of an unknown version",
            "signalbus_test_unknown_version",
            "",
            Refused("this relay speaks signalbus:plugin 0.1.x"),
        ),
    ]
}

/// What no compiler writes: traps, and answers that break the rules of the component model.
fn modules() -> Vec<Case> {
    [crashes(), answers_that_break_the_rules(), reasons_that_break_the_rules(), demands(), starts()]
        .into_iter()
        .flatten()
        .collect()
}

/// Traps.
fn crashes() -> Vec<Case> {
    vec![
        module(
            "recurses without end",
            "(func $deeper (param i32) (call $deeper (local.get 0)))",
            "(call $deeper (i32.const 1)) unreachable",
            TRAPPED,
        ),
        module("divides by zero", "", "(i32.div_u (i32.const 1) (i32.const 0))", TRAPPED),
        module("converts what does not fit", "", "(i32.trunc_f64_s (f64.const 1e300))", TRAPPED),
        module("reads beyond its memory", "", "(i32.load (i32.const 0x7ffffff0))", TRAPPED),
        module(
            "calls a function that is not there",
            "(table 1 funcref) (type $none (func))",
            "(call_indirect (type $none) (i32.const 0)) unreachable",
            TRAPPED,
        ),
        module(
            "calls a function of another type",
            "(table funcref (elem $sent)) (type $none (func))",
            "(call_indirect (type $none) (i32.const 0)) unreachable",
            TRAPPED,
        ),
    ]
}

/// Answers that break the rules of the component model.
fn answers_that_break_the_rules() -> Vec<Case> {
    vec![
        module("answers from beyond its memory", "", "(i32.const 0x7ffffff0)", Waits("")),
        module("answers at an odd address", "", "(i32.const 513)", Waits("")),
        module("answers with a case that does not exist", "", &answers(7, "(i32.const 0)", "(i32.const 0)"), Waits("")),
        module("answers a list of four billion outcomes", "", &answers(0, "(i32.const 1024)", "(i32.const -1)"), Waits("")),
        module("answers a list beyond its memory", "", &answers(0, "(i32.const 0x7ffffff0)", "(i32.const 5)"), Waits("")),
        module(
            "answers two thousand outcomes",
            "",
            &answers(0, "(i32.const 65536)", "(i32.const 2000)"),
            Waits("the plugin answered 2000 outcomes"),
        ),
    ]
}

/// Reasons that do.
fn reasons_that_break_the_rules() -> Vec<Case> {
    vec![
        module(
            "gives a reason that is no UTF-8",
            "(data (i32.const 64) \"\\ff\\fe\\80\")",
            &reasons("(i32.const 64)", "(i32.const 3)"),
            Waits(""),
        ),
        module("gives a reason beyond its memory", "", &reasons("(i32.const 64)", "(i32.const 0x7fffffff)"), Waits("")),
        module(
            "gives one text of 1 MB as the reason of each signal",
            "",
            &("(drop (memory.grow (i32.const 30)))".to_owned() + &reasons("(i32.const 65536)", "(i32.const 1000000)")).replacen(
                "(drop (memory.grow (i32.const 30)))(local $n i32) (local $at i32)",
                "(local $n i32) (local $at i32) (drop (memory.grow (i32.const 30)))",
                1,
            ),
            Dead(""),
        ),
        module(
            "gives a reason of control characters",
            "(data (i32.const 64) \"\\1b[2J\\0d\\0a1970-01-01T00:00:00Z ERROR forged\\e2\\80\\ae\")",
            &reasons("(i32.const 64)", "(i32.const 42)"),
            Dead(""),
        ),
    ]
}

/// What takes memory or time.
fn demands() -> Vec<Case> {
    let memory = |pages: u32| format!("(memory {pages})");
    vec![
        module(
            "grows its memory page by page",
            "",
            "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable",
            Waits("exceeded its memory limit"),
        ),
        module(
            "fills its memory again and again",
            "",
            "(loop $again (memory.fill (i32.const 4096) (i32.const 1) (i32.const 100000)) (br $again)) unreachable",
            DEADLINE,
        ),
        module(
            "grows a table",
            "(table $t 1 funcref)",
            "(loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1)))) (call $sent (local.get $signals))",
            Sent,
        ),
        module("has a memory of 4 GiB from the start", &memory(65536), "unreachable", Refused("memory limit")),
        module("has nine memories", &memory(1).repeat(8), "unreachable", Refused("")),
        module("has a table of ten million entries", "(table 10000000 funcref)", "unreachable", Refused("")),
    ]
}

/// What goes wrong at the start, and names.
fn starts() -> Vec<Case> {
    vec![
        module(
            "starts without end",
            "(func $spin (loop $again (br $again))) (start $spin)",
            "unreachable",
            Refused("exceeded its deadline"),
        ),
        module(
            "traps when it starts",
            "(func $trap unreachable) (start $trap)",
            "unreachable",
            Refused("does not start: plugin trapped"),
        ),
        module(
            "takes all memory when it starts",
            "(func $more (loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))) (start $more)",
            "unreachable",
            Refused("memory limit"),
        ),
        module("has data beyond its memory", "(data (i32.const 0x7fffff00) \"far away\")", "unreachable", Refused("")),
        module("has functions beyond its table", "(table 1 funcref) (elem (i32.const 5) func $sent)", "unreachable", Refused("")),
        module(
            "names its functions in control characters",
            "(func $\"a\\1b[2J\\0a1970-01-01 ERROR\" unreachable)",
            "(call $\"a\\1b[2J\\0a1970-01-01 ERROR\") unreachable",
            TRAPPED,
        ),
        module(
            "names a function so that its name means gigabytes",
            &format!("(func ${:?} unreachable)", long_name()),
            &format!("(call ${:?}) unreachable", long_name()),
            TRAPPED,
        ),
        module(
            "answers after its time is over",
            "",
            "(local $n i64) (loop $again (local.set $n (i64.add (local.get $n) (i64.const 1))) (br_if $again (i64.lt_u (local.get $n) (i64.const 100000000000)))) (call $sent (local.get $signals))",
            DEADLINE,
        ),
    ]
}

/// An allocator for what the relay passes, in the place of the usual one.
fn allocator(tries: &'static str, body: &str, fate: Fate) -> Case {
    let text = format!(
        "(module (memory (export \"memory\") 2)
           (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) {body})
           (func (export \"signalbus:plugin/bulk-sender@0.1.1#send-signalbus-messages\")
             (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable))"
    );
    bytes(tries, move || component(wat::parse_str(&text).unwrap()), fate)
}

pub(super) fn good() -> Vec<u8> {
    components::module("", "", "(call $sent (local.get $signals))")
}

pub(super) fn traps() -> Vec<u8> {
    components::module("", "", "unreachable")
}

/// A component within a component, and so on.
fn nested(depth: usize) -> Vec<u8> {
    let empty = b"\0asm\x0d\0\x01\0";
    (0..depth).fold(empty.to_vec(), |inner, _| {
        let mut outer = empty.to_vec();
        outer.push(4);
        components::leb(&mut outer, inner.len());
        [outer, inner].concat()
    })
}

fn instances(number: usize) -> Vec<u8> {
    wat::parse_str(format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(number))).unwrap()
}

fn functions(number: usize) -> Vec<u8> {
    component(components::module("", &"(func)".repeat(number), "(call $sent (local.get $signals))"))
}

fn half() -> Vec<u8> {
    let whole = std::fs::read(guest("sends")).unwrap();
    whole[..whole.len() / 2].to_vec()
}

fn no_debug_information() -> Vec<u8> {
    component(with_section(with_section(traps(), ".debug_info", &[255; 400]), ".debug_abbrev", &[255; 90]))
}

/// What is wrong with a file.
fn files() -> Vec<Case> {
    vec![
        allocator("allocates beyond its memory", "(i32.const 0x7ffffff0)", Waits("")),
        allocator("allocates at odd addresses", "(i32.const 4097)", Waits("")),
        allocator("traps when it allocates", "unreachable", Waits("")),
        allocator("allocates without end", "(loop $again (br $again)) unreachable", DEADLINE),
        bytes("is empty", Vec::new, Refused("is not a WebAssembly component")),
        bytes("is a text", || b"#!/bin/sh\nreboot\n".to_vec(), Refused("is not a WebAssembly component")),
        bytes("is a core module", good, Refused("is a core module")),
        bytes("is half a component", half, Refused("does not compile")),
        bytes("is a component of nothing", || nested(0), Refused("exports none of")),
        bytes("has 200 components within one another", || nested(200), Refused("")),
        bytes("makes 2,000 instances", || instances(2000), Refused("")),
        bytes(
            "has a section of 60 MB that nobody needs",
            || component(with_section(good(), "ballast", &vec![7; 60 << 20])),
            Sent,
        ),
        bytes("has 100,000 functions", || functions(100_000), Sent),
        bytes("has names that are no names", || with_section(component(traps()), "component-name", &[1, 200, 1, 5]), TRAPPED),
        bytes("has debug information that is none", no_debug_information, TRAPPED),
        bytes("has 20,000 units of debug information with 50,000 ranges each", || component(shared_ranges(traps())), TRAPPED),
        bytes("is costly to compile", || component(tangle(16_000)), Refused("it takes more than")),
    ]
}

/// Runs them in one relay, and asserts what becomes of each, and of the neighbour.
async fn run(cases: Vec<Case>) {
    run_within("2s", cases).await;
}

/// The same, with this time limit for a call.
pub(super) async fn run_within(timeout: &str, cases: Vec<Case>) {
    let database = Database::sqlite().await;
    let folder = tempfile::TempDir::new().unwrap();
    let mut signals = section("Bystander", &guest("counts"), "burst_count = 50");
    database.run("CREATE TABLE bystander (id INTEGER PRIMARY KEY)").await;
    for (n, case) in cases.iter().enumerate() {
        database
            .run(&format!(
                "CREATE TABLE hostile_{n} (id INTEGER PRIMARY KEY); INSERT INTO hostile_{n} VALUES (1), (2), (3), (4), (5)"
            ))
            .await;
        let (plugin, settings): (PathBuf, &str) = match &case.plugin {
            Plugin::Guest(name, settings) => (guest(name), settings),
            Plugin::Module(more, body) => {
                (components::write(folder.path(), &n.to_string(), components::module("", more, body)), "")
            }
            Plugin::Bytes(bytes) => {
                let path = folder.path().join(format!("{n}.wasm"));
                std::fs::write(&path, bytes()).unwrap();
                (path, "")
            }
        };
        let more = format!(
            "table = 'hostile_{n}'\ntimeout = '{timeout}'\nmemory = '8MiB'\nconcurrency = 1\n[signals.hostile_{n}.settings]\n{settings}"
        );
        signals += &section(&format!("hostile_{n}"), &plugin, &more);
    }
    let relay = Running::spawn(&database, &signals, "");
    relay.wait("the relay does not listen", || relay.request("GET", "/healthz", "", "").is_ok());
    let mut beside = Beside { database, relay };
    for (n, case) in cases.iter().enumerate() {
        let begun = Instant::now();
        while let Err(found) = beside.fate(n, case.fate).await {
            assert!(begun.elapsed() < PATIENCE, "a plugin that {}: {found}\n{}", case.tries, beside.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if n % 5 == 0 {
            beside.neighbour_works().await;
        }
    }
    beside.neighbour_works().await;
    assert!(beside.relay.witness.text().len() < 60 << 20, "the log has {} bytes", beside.relay.witness.text().len());
    assert!(beside.relay.witness.text().lines().all(|line| !line.starts_with("1970")));
    assert_eq!(beside.relay.stop(), Some(0), "{}", beside.log());
}

impl Beside {
    /// Whether the rows of a type have met this fate; what they have met, if not.
    async fn fate(&self, n: usize, fate: Fate) -> Result<(), String> {
        // (Of a batch that was given up, some may not have been tried alone.)
        let held = async |state: &str, words: &str| {
            let all = format!("SELECT count(*) FROM signalbus_hold WHERE signal_type = 'hostile_{n}' AND state = '{state}'");
            let named = format!("{all} AND instr(reason, '{words}') > 0");
            self.database.number(&all).await == 5 && self.database.number(&named).await > 0
        };
        let rows = self.database.count(&format!("hostile_{n}")).await;
        let status = self.relay.status_of(&format!("hostile_{n}"));
        let says = |words: &str| status["reason"].as_str().is_some_and(|reason| reason.contains(words));
        let (wanted, met) = match fate {
            Sent => (0, rows == 0),
            Waits(words) => (5, held("retry", words).await),
            Dead(words) => (5, held("dead", words).await),
            Paused(words) => (5, says(words)),
            Refused(words) => (5, status["state"] == "failing" && says(words)),
        };
        if rows == wanted && met {
            return Ok(());
        }
        let reasons = self
            .database
            .lines(&format!(
                "SELECT state || ': ' || substr(reason, 1, 300) FROM signalbus_hold WHERE signal_type = 'hostile_{n}'"
            ))
            .await;
        Err(format!("{rows} rows, {reasons:?}, {status}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_harm_themselves_only() {
    let mut cases = guests();
    let rest = cases.split_off(14);
    run(cases).await;
    run(rest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_harm_themselves_only() {
    let mut cases = modules();
    let rest = cases.split_off(15);
    run(cases).await;
    run(rest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_harm_themselves_only() {
    run(files()).await;
}

/// The table in the book is the collection.
#[test]
fn the_table_in_the_book_has_them_all() {
    let mut table = "| A plugin that … | Its rows |\n|---|---|\n".to_owned();
    let all = [guests(), modules(), files(), misuse::resources(), misuse::words(), rules::rules(), parts::parts()];
    for case in all.iter().flatten() {
        let quoted = |words: &str| if words.is_empty() { String::new() } else { format!(": `{words}`") };
        let fate = match case.fate {
            Sent => "are sent".to_owned(),
            Waits(words) => format!("wait for another attempt{}", quoted(words)),
            Dead(words) => format!("are dead letters{}", quoted(words)),
            Paused(words) => format!("wait, the type is paused{}", quoted(words)),
            Refused(words) => format!("wait, the file is refused{}", quoted(words)),
        };
        let _ = writeln!(table, "| {} | {fate} |", case.tries);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/hostile.md");
    let page = std::fs::read_to_string(path).unwrap();
    if std::env::var_os("SIGNALBUS_WRITE_TABLE").is_some() {
        let (head, _) = page.split_once("| A plugin").unwrap_or((&page, ""));
        std::fs::write(path, format!("{head}{table}")).unwrap();
        return;
    }
    assert!(page.ends_with(&table), "run this test with SIGNALBUS_WRITE_TABLE=1");
}
