//! What the relay's own functions can be misused for.

use super::collection::Fate::{Sent, Waits};
use super::collection::{Case, Fate, TRAPPED, bytes, run_within};
use super::*;

pub(super) const WORLDS: &str = include_str!("misuse.wit");

pub(super) const IMPORTS: &str = r#"
  (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))
  (import "wasi:cli/stdin@0.2.0" "get-stdin" (func $stdin (result i32)))
  (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
  (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-instant" (func $at (param i64) (result i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $after (param i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "poll" (func $poll (param i32 i32 i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.ready" (func $ready (param i32) (result i32)))
  (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop (param i32)))
  (import "wasi:io/streams@0.2.0" "[method]input-stream.read" (func $read (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[method]input-stream.blocking-read" (func $await (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.check-write" (func $check (param i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $print (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.subscribe" (func $writable (param i32) (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.write-zeroes" (func $zeroes (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-zeroes-and-flush" (func $flush (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-splice" (func $splice (param i32 i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $close (param i32)))
  (import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))
  (import "signalbus:plugin/config@0.1.1" "get" (func $setting (param i32 i32 i32)))
  (import "signalbus:plugin/config@0.1.1" "get-all" (func $settings (param i32)))
  (import "signalbus:plugin/config@0.1.1" "get-secret" (func $secret (param i32 i32 i32)))
  (import "signalbus:plugin/log@0.1.1" "emit" (func $emit (param i32 i32 i32 i32 i32)))
  (import "signalbus:plugin/producer@0.1.1" "publish" (func $publish (param i32 i32 i32)))
"#;

pub(super) const DEADLINE: Fate = Waits("exceeded its deadline of 400ms");
pub(super) const SENT: &str = "(call $sent (local.get $signals))";
const LIES: &str = r#"(data (i32.const 64) "\0a1970-01-01T00:00:00Z ERROR forged\0d\1b[2J\e2\80\ae\f0\9f")"#;

pub(super) fn plugin(more: &str, body: &str) -> Vec<u8> {
    components::component_in(WORLDS, "misuse", components::module(IMPORTS, more, body))
}

/// What a function does with the relay's functions, before it answers that everything was sent.
fn calls(tries: &'static str, body: &'static str, fate: Fate) -> Case {
    with(tries, LIES, body, SENT, fate)
}

/// The same, again and again.
fn repeats(tries: &'static str, body: &str) -> Case {
    let again = format!("(loop $again (global.set $free (i32.const 1024)) {body} (br $again))");
    bytes(tries, move || plugin(LIES, &format!("{again} unreachable")), DEADLINE)
}

fn with(tries: &'static str, more: &'static str, body: &'static str, answer: &'static str, fate: Fate) -> Case {
    bytes(tries, move || plugin(more, &format!("{body} {answer}")), fate)
}

/// Misuse of clocks, random numbers, streams and what can be waited for.
#[expect(clippy::too_many_lines, reason = "it is a list")]
pub(super) fn resources() -> Vec<Case> {
    vec![
        calls("asks for 2^60 random bytes", "(call $random (i64.const 0x1000000000000000) (i32.const 512))", Waits("")),
        repeats("asks for a megabyte of random bytes, again and again", "(call $random (i64.const 1000000) (i32.const 512))"),
        calls("waits for the last instant of the clock", "(call $block (call $at (i64.const -1)))", DEADLINE),
        calls("waits for 2^64 - 1 ns", "(call $block (call $after (i64.const -1)))", DEADLINE),
        calls("waits for nothing at all", "(call $poll (i32.const 64) (i32.const 0) (i32.const 512))", Waits("")),
        with(
            "waits for what is ready, again and again",
            "",
            "(local $it i32) (local.set $it (call $at (i64.const 0))) (loop $again (call $block (local.get $it)) (br $again))",
            "unreachable",
            DEADLINE,
        ),
        repeats("takes and drops resources", "(call $drop (call $after (i64.const 1000000000)))"),
        bytes(
            "waits for one thing in a list of a million",
            || {
                let fill = "(i32.store (local.get $n) (local.get $it)) (local.set $n (i32.add (local.get $n) (i32.const 4)))";
                plugin(
                    "",
                    &format!(
                        "(local $n i32) (local $it i32) (drop (memory.grow (i32.const 70))) (local.set $n (i32.const 131072))
                         (local.set $it (call $after (i64.const 3600000000000)))
                         (loop $next {fill} (br_if $next (i32.lt_u (local.get $n) (i32.const 4131072))))
                         (loop $again (call $poll (i32.const 131072) (i32.const 1000000) (i32.const 512)) (br $again)) unreachable"
                    ),
                )
            },
            Waits(""),
        ),
        calls(
            "drops a stream that it waits for",
            "(local $out i32) (local $it i32) (local.set $out (call $stdout)) (local.set $it (call $writable (local.get $out))) (call $close (local.get $out)) (call $block (local.get $it))",
            Waits(""),
        ),
        calls(
            "uses what it has dropped",
            "(local $it i32) (local.set $it (call $after (i64.const 0))) (call $drop (local.get $it)) (call $block (local.get $it))",
            Waits(""),
        ),
        calls("uses a resource that it never had", "(call $block (i32.const 77))", Waits("")),
        calls(
            "writes without asking how much it may",
            "(call $write (call $stdout) (i32.const 64) (i32.const 100000) (i32.const 512))",
            Sent,
        ),
        calls("writes 2^60 zeroes", "(call $zeroes (call $stdout) (i64.const 0x1000000000000000) (i32.const 512))", Waits("")),
        calls(
            "writes 2^60 zeroes and waits for them",
            "(call $flush (call $stdout) (i64.const 0x1000000000000000) (i32.const 512))",
            Waits(""),
        ),
        with(
            "writes nothing but ends of lines",
            "",
            "(local $out i32) (local.set $out (call $stdout)) (memory.fill (i32.const 2048) (i32.const 10) (i32.const 4096)) (loop $again (call $print (local.get $out) (i32.const 2048) (i32.const 4096) (i32.const 512)) (br $again))",
            "unreachable",
            DEADLINE,
        ),
        with(
            "writes byte by byte",
            LIES,
            "(local $out i32) (local.set $out (call $stdout)) (loop $again (call $print (local.get $out) (i32.const 66) (i32.const 1) (i32.const 512)) (br $again))",
            "unreachable",
            DEADLINE,
        ),
        with(
            "dies with lies on its lips",
            LIES,
            "(call $print (call $stderr) (i32.const 64) (i32.const 43) (i32.const 512))",
            "unreachable",
            TRAPPED,
        ),
        with(
            "dies with 4 kB of ends of lines on its lips",
            LIES,
            "(memory.fill (i32.const 2048) (i32.const 10) (i32.const 4096)) (call $print (call $stderr) (i32.const 2048) (i32.const 4096) (i32.const 512))",
            "unreachable",
            TRAPPED,
        ),
        calls(
            "reads 2^63 bytes of standard input",
            "(call $await (call $stdin) (i64.const 0x7fffffffffffffff) (i32.const 512))",
            Sent,
        ),
        calls(
            "copies standard input to standard output",
            "(call $splice (call $stdout) (call $stdin) (i64.const -1) (i32.const 512))",
            Sent,
        ),
        repeats("does nothing but read the clock", "(drop (call $now))"),
    ]
}

/// A loop over memory, so that each time four bytes of a name are others.
const NEXT_NAME: &str =
    "(i32.store (i32.const 64) (i32.or (i32.const 0x61616161) (i32.and (i32.load (i32.const 32)) (i32.const 0x0f0f0f0f))))
     (i32.store (i32.const 32) (i32.add (i32.load (i32.const 32)) (i32.const 0x01030507)))";

/// Misuse of the log, the settings and the buses.
#[expect(clippy::too_many_lines, reason = "it is a list")]
pub(super) fn words() -> Vec<Case> {
    let more = "(local $n i32) (drop (memory.grow (i32.const 110)))";
    vec![
        calls(
            "logs at a level that does not exist",
            "(call $emit (i32.const 77) (i32.const 64) (i32.const 4) (i32.const 0) (i32.const 0))",
            Waits(""),
        ),
        bytes(
            "logs a record with 400,000 fields, all empty",
            move || {
                plugin(
                    "",
                    &format!(
                        "{more} (call $emit (i32.const 2) (i32.const 64) (i32.const 0) (i32.const 131072) (i32.const 400000)) {SENT}"
                    ),
                )
            },
            Waits("too much data"),
        ),
        repeats(
            "logs nothing, again and again",
            "(call $emit (i32.const 4) (i32.const 64) (i32.const 0) (i32.const 0) (i32.const 0))",
        ),
        with(
            "logs fields with the names of the relay's own",
            r#"(data (i32.const 64) "batchgenerationlevelmessagepluginsignal_typetargettimestampversionBystander")
               (data (i32.const 2048) "\40\00\00\00\05\00\00\00\82\00\00\00\09\00\00\00\45\00\00\00\0a\00\00\00\82\00\00\00\09\00\00\00"
                 "\4f\00\00\00\05\00\00\00\82\00\00\00\09\00\00\00\54\00\00\00\07\00\00\00\82\00\00\00\09\00\00\00"
                 "\5b\00\00\00\06\00\00\00\82\00\00\00\09\00\00\00\61\00\00\00\0b\00\00\00\82\00\00\00\09\00\00\00"
                 "\6c\00\00\00\06\00\00\00\82\00\00\00\09\00\00\00\72\00\00\00\09\00\00\00\82\00\00\00\09\00\00\00")"#,
            "(call $emit (i32.const 4) (i32.const 64) (i32.const 5) (i32.const 2048) (i32.const 8))",
            "(global.set $free (i32.const 4096)) (call $sent (local.get $signals))",
            Sent,
        ),
        calls(
            "logs from beyond its memory",
            "(call $emit (i32.const 4) (i32.const -8) (i32.const 64) (i32.const 0) (i32.const 0))",
            Waits(""),
        ),
        bytes(
            "asks for a setting with a name of 7 MB",
            move || plugin("", &format!("{more} (call $setting (i32.const 131072) (i32.const 7000000) (i32.const 512)) {SENT}")),
            Sent,
        ),
        repeats(
            "asks for a secret of another name each time",
            &format!("{NEXT_NAME} (call $secret (i32.const 64) (i32.const 8) (i32.const 512))"),
        ),
        repeats("asks for all settings, again and again", "(call $settings (i32.const 512))"),
        calls("publishes no message at all", "(call $publish (i32.const 64) (i32.const 0) (i32.const 512))", Sent),
        bytes(
            "publishes 90,000 empty messages",
            move || plugin("", &format!("{more} (call $publish (i32.const 131072) (i32.const 90000) (i32.const 512)) {SENT}")),
            Waits(""),
        ),
        repeats("publishes to nowhere, again and again", "(call $publish (i32.const 4096) (i32.const 1) (i32.const 512))"),
        with(
            "publishes to a connection with a name of lies",
            r#"(data (i32.const 64) "\0a1970-01-01T00:00:00Z ERROR forged\0d\1b[2J\e2\80\ae") (data (i32.const 2048) "\40\00\00\00\29\00\00\00")"#,
            "(global.set $free (i32.const 4096)) (call $publish (i32.const 2048) (i32.const 1) (i32.const 512)) (i32.const 512)",
            "",
            Waits(""),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn misused_functions_harm_nobody_else() {
    run_within("400ms", resources()).await;
    run_within("400ms", words()).await;
}

/// Fourteen at once, on one processor, with few files and one connection to the database.
#[tokio::test(flavor = "multi_thread")]
async fn little_of_everything_is_enough() {
    let folder = tempfile::TempDir::new().unwrap();
    let database = Database::sqlite().await;
    let mut signals = "max_connections = 1\n".to_owned() + &section("Bystander", &guest("counts"), "burst_count = 50");
    database.run("CREATE TABLE bystander (id INTEGER PRIMARY KEY)").await;
    let names = ["spins", "sleeps", "eats_memory", "hoards", "floods_log", "floods_stdout", "traps", "exits", "retries"];
    let modules = ["(loop $again (br $again)) unreachable", "unreachable", "(i32.const -1)"];
    let written = modules
        .iter()
        .enumerate()
        .map(|(n, body)| components::write(folder.path(), &n.to_string(), components::module("", &"(memory 1)".repeat(n), body)));
    let odd = [WAITS_AGAIN, "(call $drop (i32.const 5))"].map(|body| {
        let path = folder.path().join(format!("odd-{}.wasm", body.len()));
        std::fs::write(&path, plugin("", &format!("{body} unreachable"))).unwrap();
        path
    });
    for (n, plugin) in names.iter().map(|name| guest(name)).chain(written).chain(odd).enumerate() {
        let rows = database.series(200);
        database
            .run(&format!("CREATE TABLE hostile_{n} (id INTEGER PRIMARY KEY); INSERT INTO hostile_{n} SELECT i FROM {rows}"))
            .await;
        let more = format!("table = 'hostile_{n}'\ntimeout = '2s'\nmemory = '8MiB'\nburst_count = 10");
        signals += &section(&format!("hostile_{n}"), &plugin, &more);
    }
    let relay = Running::spawn(&database, &signals, "");
    let id = relay.id().to_string();
    for command in [&["taskset", "-acp", "0", &id][..], &["prlimit", "--nofile=256", "--pid", &id]] {
        assert!(std::process::Command::new(command[0]).args(&command[1..]).output().unwrap().status.success(), "{command:?}");
    }
    relay.wait("the relay does not listen", || relay.request("GET", "/healthz", "", "").is_ok());
    let beside = Beside { database, relay };
    for _ in 0..5 {
        beside.neighbour_works().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Calls in flight may use their time, of which what they wait for the one processor is no part; but no more than
    // the grace period.
    beside.stop_within(signalbus::relay::GRACE);
}

const WAITS_AGAIN: &str = "(loop $again (call $block (call $after (i64.const 1000))) (br $again))";
