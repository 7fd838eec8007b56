//! What is in a file too often, too deep, or at the wrong place.

use super::collection::Fate::{Refused, Sent, Waits};
use super::collection::{Case, Fate, TRAPPED, bytes, good, run_within, traps};
use super::misuse::{SENT, WORLDS};
use super::*;

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
pub(super) fn parts() -> Vec<Case> {
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
                        "(func (export \"signalbus:plugin/sender@0.1.1#send-signalbus-message\") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)",
                        SENT,
                    ),
                )
            },
            Sent,
        ),
        bytes(
            "exports half of the contract",
            || wat::parse_str("(component (instance $i) (export \"signalbus:plugin/bulk-sender@0.1.1\" (instance $i)))").unwrap(),
            Refused(""),
        ),
        text(
            "exports a function of another type",
            || {
                "(component (core module $m (func (export \"f\"))) (core instance $c (instantiate $m)) (func $f (canon lift (core func $c \"f\"))) (instance $i (export \"send-signalbus-messages\" (func $f))) (export \"signalbus:plugin/bulk-sender@0.1.1\" (instance $i)))".to_owned()
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

#[tokio::test(flavor = "multi_thread")]
async fn strange_parts_harm_nobody_else() {
    run_within("400ms", parts()).await;
}

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
