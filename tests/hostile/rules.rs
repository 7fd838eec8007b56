//! What breaks the rules of the contract and of WebAssembly.

use super::collection::Fate::{Dead, Refused, Sent, Waits};
use super::collection::{Case, Fate, TRAPPED, answers, bytes, module, run_within};
use super::misuse::{DEADLINE, IMPORTS, SENT, WORLDS, plugin};
use super::*;

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
              (func (export "signalbus:plugin/bulk-sender@0.1.1#send-signalbus-messages")
                (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable))"#
        );
        components::component_in(WORLDS, "misuse", wat::parse_str(text).unwrap())
    };
    bytes(tries, build, fate)
}

const CLEANS: &str = "cabi_post_signalbus:plugin/bulk-sender@0.1.1#send-signalbus-messages";

/// What breaks the rules of the contract and of WebAssembly.
#[expect(clippy::too_many_lines, reason = "it is a list")]
pub(super) fn rules() -> Vec<Case> {
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

#[tokio::test(flavor = "multi_thread")]
async fn broken_rules_harm_nobody_else() {
    run_within("400ms", rules()).await;
}
