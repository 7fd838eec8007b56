//! The second list: what the relay's own functions, the rules of components and the parts of a file can be misused for.

use super::collection::Fate::{Dead, Refused, Sent, Waits};
use super::collection::{Case, Fate, TRAPPED, answers, bytes, good, module, run_within, traps};
use super::*;

const WORLDS: &str = include_str!("others.wit");

const IMPORTS: &str = r#"
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
  (import "signalbus:plugin/config@0.1.0" "get" (func $setting (param i32 i32 i32)))
  (import "signalbus:plugin/config@0.1.0" "get-all" (func $settings (param i32)))
  (import "signalbus:plugin/config@0.1.0" "get-secret" (func $secret (param i32 i32 i32)))
  (import "signalbus:plugin/log@0.1.0" "emit" (func $emit (param i32 i32 i32 i32 i32)))
  (import "signalbus:plugin/producer@0.1.0" "publish" (func $publish (param i32 i32 i32)))
"#;

const DEADLINE: Fate = Waits("exceeded its deadline of 400ms");
const SENT: &str = "(call $sent (local.get $signals))";
const LIES: &str = r#"(data (i32.const 64) "\0a1970-01-01T00:00:00Z ERROR forged\0d\1b[2J\e2\80\ae\f0\9f")"#;

fn plugin(more: &str, body: &str) -> Vec<u8> {
    components::component_in(WORLDS, "others", components::module(IMPORTS, more, body))
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
fn resources() -> Vec<Case> {
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
fn words() -> Vec<Case> {
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

/// An answer of the outcome `retry` for each signal, in no time.
const AT_ONCE: &str = "(local $n i32) (local $at i32) (local.set $at (call $alloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.mul (local.get $signals) (i32.const 32))))
    (loop $next (i32.store (i32.add (local.get $at) (local.get $n)) (i32.const 2)) (i32.store offset=16 (i32.add (local.get $at) (local.get $n)) (i32.const 1))
      (local.set $n (i32.add (local.get $n) (i32.const 32))) (br_if $next (i32.lt_u (local.get $n) (i32.mul (local.get $signals) (i32.const 32)))))";

/// An answer that the signals from this one on were not tried.
fn untried(first: u32) -> Vec<u8> {
    let find = "(loop $find (if (i32.ne (i32.load8_u (i32.load (local.get $pair))) (i32.const 117))
        (then (local.set $pair (i32.add (local.get $pair) (i32.const 16))) (br $find))))";
    let outcome =
        "(i32.store (local.get $one) (i32.const 2)) (i32.store offset=8 (local.get $one) (i32.load offset=8 (local.get $pair)))
        (i32.store offset=12 (local.get $one) (i32.load offset=12 (local.get $pair)))";
    let body = format!(
        "(local $n i32) (local $at i32) (local $one i32) (local $pair i32) (local.set $pair (local.get 4)) {find}
         (local.set $at (call $alloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.mul (local.get $signals) (i32.const 32))))
         (local.set $n (i32.const {first}))
         (loop $next (if (i32.lt_u (local.get $n) (local.get $signals)) (then
           (local.set $one (i32.add (local.get $at) (i32.mul (local.get $n) (i32.const 32)))) {outcome}
           (local.set $n (i32.add (local.get $n) (i32.const 1))) (br $next))))
         {}",
        answers(0, "(local.get $at)", "(local.get $signals)")
    );
    component(components::module("", "", &body))
}

/// What the function is called through, in the place of the usual one: an allocator, or what cleans up after an answer.
fn around(tries: &'static str, more: &'static str, fate: Fate) -> Case {
    bytes(tries, move || plugin(&more.replace("POST", CLEANS), SENT), fate)
}

fn allocates(tries: &'static str, body: &'static str, fate: Fate) -> Case {
    let build = move || {
        let text = format!(
            r#"(module {IMPORTS} (memory (export "memory") 2)
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {body})
              (func (export "signalbus:plugin/bulk-sender@0.1.0#send-signalbus-messages")
                (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable))"#
        );
        components::component_in(WORLDS, "others", wat::parse_str(text).unwrap())
    };
    bytes(tries, build, fate)
}

const CLEANS: &str = "cabi_post_signalbus:plugin/bulk-sender@0.1.0#send-signalbus-messages";

/// What breaks the rules of the contract and of WebAssembly.
#[expect(clippy::too_many_lines, reason = "it is a list")]
fn rules() -> Vec<Case> {
    vec![
        module(
            "asks for another attempt in no time",
            "",
            &format!("{AT_ONCE} {}", answers(0, "(local.get $at)", "(local.get $signals)")),
            Dead(""),
        ),
        bytes("has tried no signal of a call", || untried(0), Waits("")),
        bytes("tries one signal of each call", || untried(1), Sent),
        allocates("calls the relay while it allocates", "(call $settings (i32.const 512)) (i32.const 1024)", Waits("")),
        allocates("ends its process while it allocates", "(call $exit (i32.const 0)) (i32.const 1024)", Waits("")),
        allocates("waits while it allocates", "(call $block (call $after (i64.const -1))) (i32.const 1024)", Waits("")),
        around("traps when it cleans up", r#"(func (export "POST") (param i32) unreachable)"#, Waits("")),
        around("cleans up for ever", r#"(func (export "POST") (param i32) (loop $again (br $again)))"#, Waits("")),
        around(
            "calls the relay when it cleans up",
            r#"(func (export "POST") (param i32) (call $settings (i32.const 512)))"#,
            Waits(""),
        ),
        around(
            "takes all memory when it cleans up",
            r#"(func (export "POST") (param i32) (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable)"#,
            Waits(""),
        ),
        module(
            "recurses with 400 kB on the stack each time",
            &deep_frames(),
            "(call $deeper (i32.const 1)) unreachable",
            TRAPPED,
        ),
        module(
            "calls in a circle, in the place of returning",
            "(func $around (result i32) (return_call $around))",
            "(call $around)",
            DEADLINE,
        ),
        module(
            "throws",
            "(tag $ball) (func $throw (throw $ball))",
            "(call $throw) unreachable",
            Refused("exceptions proposal not enabled"),
        ),
        module(
            "collects garbage of gigabytes",
            "(type $big (array (mut i64)))",
            "(loop $again (drop (array.new_default $big (i32.const 100000000))) (br $again)) unreachable",
            Refused(""),
        ),
        module(
            "waits for a word of shared memory",
            "(memory $s 1 1 shared)",
            "(memory.atomic.wait32 $s (i32.const 0) (i32.const 0) (i64.const -1))",
            Refused(""),
        ),
        module(
            "waits for a word of its own memory",
            "",
            "(memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))",
            Refused("threads support is not enabled"),
        ),
        module(
            "has a memory with addresses of 64 bits, and grows it by 2^47 pages",
            "(memory $l i64 1)",
            "(drop (memory.grow $l (i64.const 0x800000000000))) (call $sent (local.get $signals))",
            Refused(""),
        ),
        module(
            "has a memory of pages of one byte, and takes each",
            "(memory $b 0 (pagesize 1))",
            "(loop $more (br_if $more (i32.ne (memory.grow $b (i32.const 1)) (i32.const -1)))) unreachable",
            Refused(""),
        ),
        module(
            "copies its memory, again and again",
            "",
            "(drop (memory.grow (i32.const 100))) (loop $again (memory.copy (i32.const 4096) (i32.const 4097) (i32.const 6000000)) (br $again)) unreachable",
            DEADLINE,
        ),
        module(
            "fills a table, again and again",
            "(table $t 10000 funcref) (elem declare func $sent)",
            "(loop $again (table.fill $t (i32.const 0) (ref.func $sent) (i32.const 10000)) (br $again)) unreachable",
            DEADLINE,
        ),
        module(
            "grows a table by nothing, again and again",
            "(table $t 1 funcref)",
            "(loop $again (drop (table.grow $t (ref.null func) (i32.const 0))) (br $again)) unreachable",
            DEADLINE,
        ),
        module(
            "divides the smallest number by -1, signal by signal",
            "",
            "(drop (i64.div_s (i64.const 0x8000000000000000) (i64.const -1))) unreachable",
            TRAPPED,
        ),
    ]
}

/// A function that keeps 25,000 vectors for after a call of itself.
fn deep_frames() -> String {
    let sets: String = (0..25_000).map(|n| format!("(local.set {} (v128.load (local.get 0)))", n + 1)).collect();
    let gets: String = (0..25_000).map(|n| format!("(v128.store (local.get 0) (local.get {}))", n + 1)).collect();
    format!("(func $deeper (param i32) (local {}) {sets} (call $deeper (local.get 0)) {gets})", "v128 ".repeat(25_000))
}

/// A component of a text.
fn text(tries: &'static str, text: impl Fn() -> String + Send + 'static, fate: Fate) -> Case {
    bytes(tries, move || wat::parse_str(text()).unwrap(), fate)
}

/// A module of which the function answers that everything was sent, with these further fields.
fn fields(tries: &'static str, fields: impl Fn() -> String + Send + 'static, fate: Fate) -> Case {
    bytes(tries, move || component(components::module("", &fields(), SENT)), fate)
}

/// A type that is twice the type before it, and so on.
fn doubles(depth: usize) -> String {
    let types: String = (0..depth).map(|n| format!("(type $t{} (tuple $t{n} $t{n}))", n + 1)).collect();
    format!("(component (type $t0 (tuple u8 u8)) {types} (import \"f\" (func (param \"it\" $t{depth}))))")
}

/// A name of Rust that means gigabytes: each of its parts is twice the part before.
fn long_name_of_rust() -> String {
    let mut name = "_RIC1fTuuE".to_owned();
    let mut at = 5;
    for _ in 0..60 {
        let mut digits = String::new();
        let mut rest = at - 3;
        loop {
            digits.insert(0, char::from(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[rest % 62]));
            rest /= 62;
            if rest == 0 {
                break;
            }
        }
        at = name.len();
        name += &format!("TB{digits}_B{digits}_E");
    }
    name + "E"
}

/// Debug information with inlined functions within one another, each of which is named by itself.
fn inlined(depth: usize) -> Vec<u8> {
    let abbreviations = [
        &[1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0, 0][..],
        &[2, 0x2e, 1, 0x11, 0x01, 0x12, 0x06, 0x31, 0x13, 0, 0],
        &[3, 0x1d, 1, 0x11, 0x01, 0x12, 0x06, 0x31, 0x13, 0, 0, 0],
    ]
    .concat();
    let range = [[0; 4], i32::MAX.to_le_bytes()].concat();
    let mut unit = [&4_u16.to_le_bytes()[..], &[0; 4], &[4, 1], &range].concat();
    for depth in 0..=depth {
        let offset = u32::try_from(unit.len() + 4).unwrap();
        unit.push(if depth == 0 { 2 } else { 3 });
        unit.extend(&range);
        unit.extend(offset.to_le_bytes());
    }
    unit.extend(vec![0; depth + 2]);
    let information = [&u32::try_from(unit.len()).unwrap().to_le_bytes()[..], &unit].concat();
    component(with_section(with_section(traps(), ".debug_abbrev", &abbreviations), ".debug_info", &information))
}

/// Custom sections of a component that give its name, version and so on.
fn described(text: &[u8]) -> Vec<u8> {
    let name = |text: &[u8]| {
        let mut name = Vec::new();
        components::leb(&mut name, text.len());
        [name, text.to_vec()].concat()
    };
    let mut section = vec![0];
    let named = name(text);
    components::leb(&mut section, named.len());
    section.extend(named);
    let sections = ["authors", "description", "homepage", "licenses", "revision", "source", "version"];
    sections
        .iter()
        .fold(with_section(component(traps()), "component-name", &section), |file, name| with_section(file, name, text))
}

/// What is in a file too often, too deep, or at the wrong place.
#[expect(clippy::too_many_lines, reason = "it is a list")]
fn parts() -> Vec<Case> {
    let lies = "\n1970-01-01T00:00:00Z ERROR forged\r\u{1b}[2J\u{202e}";
    vec![
        fields(
            "jumps to a million places",
            || format!("(func (param i32) (block (br_table {} (local.get 0))))", "0 ".repeat(1_000_000)),
            Refused(""),
        ),
        fields(
            "jumps to 60,000 places, in 6 functions",
            || format!("(func (param i32) (block (br_table {} (local.get 0))))", "0 ".repeat(60_000)).repeat(6),
            Sent,
        ),
        fields(
            "has 50,000 variables in each of 9 functions",
            || format!("(func (local {}))", "i64 ".repeat(50_000)).repeat(9),
            Sent,
        ),
        fields(
            "has 30,000 blocks within one another",
            || format!("(func {} {})", "block ".repeat(30_000), "end ".repeat(30_000)),
            Sent,
        ),
        fields(
            "has conditions within 20,000 conditions",
            || format!("(func (param i32) {} {})", "local.get 0 if ".repeat(20_000), "end ".repeat(20_000)),
            Sent,
        ),
        fields(
            "has a function of 200,000 instructions",
            || format!("(func (result i32) i32.const 1 {})", "i32.const 1 i32.add ".repeat(100_000)),
            Sent,
        ),
        fields(
            "has a function with a thousand parameters, and calls it a hundred times",
            || {
                format!(
                    "(func $f (param {})) (func {})",
                    "i32 ".repeat(1000),
                    format!("(call $f {})", "(i32.const 1)".repeat(1000)).repeat(100)
                )
            },
            Sent,
        ),
        fields(
            "has 20,000 types",
            || {
                (0..20_000)
                    .map(|n: u32| {
                        format!(
                            "(type (func {}))",
                            (0..8).map(|bit| if n >> bit & 1 == 1 { "(param i32)" } else { "(param f64)" }).collect::<String>()
                        )
                    })
                    .collect()
            },
            Sent,
        ),
        fields("has 20,000 variables of its own", || "(global i32 (i32.const 1))".repeat(20_000), Sent),
        fields("has a hundred tables", || "(table 100 funcref)".repeat(99), Refused("")),
        fields("has 30,000 pieces of data, each at the same place", || "(data (i32.const 64) \"x\")".repeat(30_000), Sent),
        fields("has 30,000 pieces of data that nobody uses", || "(data \"x\")".repeat(30_000), Sent),
        fields("has 9,000 lists of functions", || "(elem func $sent $sent)".repeat(9_000), Sent),
        fields("exports 20,000 functions", || (0..20_000).map(|n| format!("(export \"f{n}\" (func $sent))")).collect(), Sent),
        bytes(
            "exports the same twice",
            || {
                let mut file = component(good());
                let part = file.clone();
                file.extend(&part[8..]);
                file
            },
            Refused("does not compile"),
        ),
        bytes(
            "exports both contracts, of which one traps",
            || {
                components::component_in(
                    WORLDS,
                    "both",
                    components::module(
                        "",
                        "(func (export \"signalbus:plugin/sender@0.1.0#send-signalbus-message\") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)",
                        SENT,
                    ),
                )
            },
            Sent,
        ),
        bytes(
            "exports half of the contract",
            || wat::parse_str("(component (instance $i) (export \"signalbus:plugin/bulk-sender@0.1.0\" (instance $i)))").unwrap(),
            Refused(""),
        ),
        text(
            "exports a function of another type",
            || {
                "(component (core module $m (func (export \"f\"))) (core instance $c (instantiate $m)) (func $f (canon lift (core func $c \"f\"))) (instance $i (export \"send-signalbus-messages\" (func $f))) (export \"signalbus:plugin/bulk-sender@0.1.0\" (instance $i)))".to_owned()
            },
            Waits("plugin failed: "),
        ),
        text("imports a name of lies", move || format!("(component (import {:?} (func)))", format!("url=<{lies}>")), Refused("")),
        text(
            "imports a name of 90,000 letters",
            || format!("(component (import \"{}\" (func)))", "a".repeat(90_000)),
            Refused(""),
        ),
        text(
            "imports 4,000 names",
            || format!("(component {})", (0..4_000).map(|n| format!("(import \"a{n}\" (func))")).collect::<String>()),
            Refused(""),
        ),
        text("has types twice as large as the type before", || doubles(60), Refused("")),
        text("has a type as large as any may be", || doubles(16), Refused("")),
        text(
            "has a type within 90 types",
            || {
                format!(
                    "(component (type $t0 u8) {} (import \"f\" (func (param \"it\" $t90))))",
                    (0..90).map(|n| format!("(type $t{} (list $t{n}))", n + 1)).collect::<String>()
                )
            },
            Refused(""),
        ),
        text(
            "has a record of 9,000 fields in a list of its own",
            || {
                format!(
                    "(component (type $r (record {})) (export $e \"r\" (type $r)) (import \"f\" (func (param \"it\" (list $e)))))",
                    (0..9000).map(|n| format!("(field \"a{n}\" u8)")).collect::<String>()
                )
            },
            Refused(""),
        ),
        bytes(
            "has 300,000 sections of nothing",
            || {
                let mut file = component(good());
                (0..300_000).for_each(|_| file.extend([0, 2, 1, b'x']));
                file
            },
            Sent,
        ),
        bytes("is described in 2 MB each", || described(&vec![b'v'; 2 << 20]), TRAPPED),
        bytes("is described in lies", move || described(lies.as_bytes()), TRAPPED),
        bytes("is described in what is no text", || described(&[0xff; 99]), TRAPPED),
        bytes("has inlined functions within 200,000 others", || inlined(200_000), TRAPPED),
        bytes("has 200 functions inlined into one another, each named by itself", || inlined(200), TRAPPED),
        bytes(
            "names a function so that its name means gigabytes, in Rust",
            || {
                let name = long_name_of_rust();
                component(components::module(
                    "",
                    &format!("(func ${name:?} unreachable)"),
                    &format!("(call ${name:?}) unreachable"),
                ))
            },
            TRAPPED,
        ),
        bytes(
            "names each function in 200 kB of lies",
            move || {
                let name = lies.repeat(5_000);
                component(with_names(traps(), name.as_bytes()))
            },
            TRAPPED,
        ),
    ]
}

/// Names each of the functions of a module in this way.
fn with_names(module: Vec<u8>, name: &[u8]) -> Vec<u8> {
    let mut map = vec![3];
    for function in 0..3 {
        map.push(function);
        components::leb(&mut map, name.len());
        map.extend(name);
    }
    let mut section = vec![1];
    components::leb(&mut section, map.len());
    with_section(module, "name", &[section, map].concat())
}

pub(super) fn all() -> Vec<Case> {
    [resources(), words(), rules(), parts()].into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn misused_functions_harm_nobody_else() {
    run_within("400ms", resources()).await;
    run_within("400ms", words()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_rules_harm_nobody_else() {
    run_within("400ms", rules()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_parts_harm_nobody_else() {
    run_within("400ms", parts()).await;
}

/// A file that is overwritten, cut off and made longer while it is read, and a link that turns.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_never_rests_harms_nobody_else() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let plugin = path("plugin.wasm");
    std::fs::copy(guest("sends"), &plugin).unwrap();
    let beside = Beside::start(&plugin, "").await;
    let whole = std::fs::read(guest("traps")).unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    let turn = |n: usize| {
        let targets = ["/dev/zero", "folder", "plugin.wasm", "nowhere", "/proc/self/mem", "/dev/stdin"];
        match n % 5 {
            0 => std::fs::write(&plugin, &whole[..whole.len() / (2 + n % 7)]),
            1 => std::fs::File::options().write(true).open(&plugin).and_then(|file| file.set_len(n as u64 % 9)),
            2 => std::fs::File::options().write(true).open(&plugin).and_then(|file| file.set_len(127 << 20)),
            3 => std::fs::write(path("fresh"), [&whole[..], &[0, 3, 1, b'e', n as u8]].concat())
                .and_then(|()| std::fs::rename(path("fresh"), &plugin)),
            _ => symlink(targets[n / 5 % targets.len()], path("fresh")).and_then(|()| std::fs::rename(path("fresh"), &plugin)),
        }
    };
    let begun = Instant::now();
    for n in 0.. {
        // It rests now and then, so that it is read.
        let _ = turn(n);
        std::thread::sleep(Duration::from_millis(if n % 4 == 0 { 600 } else { 1 }));
        if begun.elapsed() > Duration::from_secs(6) {
            break;
        }
        // What cannot be written through a link is taken away.
        if std::fs::symlink_metadata(&plugin).is_ok_and(|found| found.is_symlink()) {
            std::fs::remove_file(&plugin).unwrap();
        }
    }
    beside.neighbour_works().await;
    let _ = std::fs::remove_file(&plugin);
    std::fs::copy(guest("sends"), &plugin).unwrap();
    beside.relay.wait_empty(&beside.database, "order_placed").await;
    assert!(beside.relay.status_of("OrderPlaced").to_string().len() < 40_000);
    beside.stop();
}

/// Fifteen at once, on one processor, with few files and one connection to the database.
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

/// A component with a section of a hundred megabytes of nothing, which takes no room on the disk.
fn hollow(path: &Path, number: u8) {
    let mut head = component(good());
    head.push(0);
    components::leb(&mut head, (100 << 20) + 3);
    head.extend([1, b'h', number]);
    std::fs::write(path, &head).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_len(head.len() as u64 + (100 << 20)).unwrap();
}

/// Four of them at once.
#[tokio::test(flavor = "multi_thread")]
async fn large_files_do_not_fill_the_memory() {
    let folder = tempfile::TempDir::new().unwrap();
    let database = Database::sqlite().await;
    let mut signals = section("Bystander", &guest("counts"), "burst_count = 50");
    database.run("CREATE TABLE bystander (id INTEGER PRIMARY KEY)").await;
    for n in 0..4 {
        let path = folder.path().join(format!("{n}.wasm"));
        hollow(&path, n);
        database.run(&format!("CREATE TABLE hollow_{n} (id INTEGER PRIMARY KEY)")).await;
        signals += &section(&format!("hollow_{n}"), &path, &format!("table = 'hollow_{n}'"));
    }
    let relay = Running::spawn(&database, &signals, "");
    relay.wait("the relay does not listen", || relay.request("GET", "/healthz", "", "").is_ok());
    let beside = Beside { database, relay };
    while (0..4).any(|n| beside.relay.status_of(&format!("hollow_{n}"))["state"] == "starting") {
        beside.neighbour_works().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    beside.stop();
}
