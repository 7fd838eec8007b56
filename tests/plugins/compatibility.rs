//! Compatibility: plugins and relays of one track work together, whichever is newer.

use std::path::Path;

use tempfile::TempPath;
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::conformance::{ROWS, passes, tried};
use super::in_each_language;
use crate::harness::{guest, target};

/// A minimal relay for a version of the contract, with what that version adds to the log, and as a whole.
macro_rules! relay {
    ($module:ident, $path:tt, { $($logging:tt)* }, { $($additions:tt)* }) => {
        mod $module {
            use super::*;

            wasmtime::component::bindgen!({
                path: $path,
                world: "signalbus:plugin/bulk-sender-plugin",
                exports: { default: async },
            });

            use self::signalbus::plugin::types::{Column, Outage, Outcome, Signal, SignalType, Value};
            use self::signalbus::plugin::{config, log, producer, types};

            struct Relay {
                wasi: WasiCtx,
                table: ResourceTable,
                published: Vec<(String, String)>,
            }

            impl WasiView for Relay {
                fn ctx(&mut self) -> WasiCtxView<'_> {
                    WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
                }
            }

            impl types::Host for Relay {}

            $($additions)*

            impl log::Host for Relay {
                fn enabled(&mut self, _: log::Level) -> bool {
                    true
                }
                fn emit(&mut self, _: log::Level, _: String, _: Vec<(String, String)>) {}
                $($logging)*
            }

            impl config::Host for Relay {
                fn get(&mut self, key: String) -> Option<String> {
                    (key == "connection").then(|| "bus".to_owned())
                }
                fn get_all(&mut self) -> Vec<(String, String)> {
                    vec![("connection".to_owned(), "bus".to_owned())]
                }
                fn get_secret(&mut self, _: String) -> Option<String> {
                    None
                }
            }

            impl producer::Host for Relay {
                fn publish(&mut self, messages: Vec<types::Message>) -> Result<Vec<Outcome>, Outage> {
                    let body = |body: Vec<u8>| String::from_utf8(body).unwrap();
                    let outcomes = vec![Outcome::Sent; messages.len()];
                    self.published.extend(messages.into_iter().map(|message| (message.id.unwrap_or_default(), body(message.body))));
                    Ok(outcomes)
                }
            }

            /// Sends one signal through a component, and returns what it published.
            pub(super) async fn send(file: &Path, interface: &str) -> Vec<(String, String)> {
                let mut cache = wasmtime::CacheConfig::new();
                cache.with_directory(target().canonicalize().unwrap().join("test-cache/signalbus"));
                let mut settings = wasmtime::Config::new();
                // As the relay compiles, so that nothing is compiled twice.
                settings.concurrency_support(false).epoch_interruption(true);
                settings.cache(Some(wasmtime::Cache::new(cache).unwrap()));
                let engine = Engine::new(&settings).unwrap();
                let component = Component::from_file(&engine, file).unwrap();
                let mut linker = Linker::<Relay>::new(&engine);
                wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
                BulkSenderPlugin::add_to_linker::<_, HasSelf<Relay>>(&mut linker, |relay| relay).unwrap();
                let relay = Relay { wasi: WasiCtx::builder().build(), table: ResourceTable::new(), published: Vec::new() };
                let mut store = Store::new(&engine, relay);
                store.set_epoch_deadline(u64::MAX / 2);
                let instance = linker.instantiate_async(&mut store, &component).await.unwrap();
                let export =
                    |store: &mut Store<Relay>, parent: Option<&_>, name: &str| instance.get_export_index(store, parent, name).unwrap();
                let interface = export(&mut store, None, interface);
                let function = export(&mut store, Some(&interface), "send-signalbus-messages");
                let send =
                    instance.get_typed_func::<(SignalType, Vec<Signal>), (Result<Vec<Outcome>, Outage>,)>(&mut store, function).unwrap();
                let column = |name: &str| Column { name: name.to_owned(), db_type: "text".to_owned() };
                let signal_type = SignalType {
                    name: "OrderPlaced".to_owned(),
                    columns: vec![column("id"), column("customer")],
                    attributes: vec![("timeout_ms".to_owned(), "30000".to_owned())],
                };
                let values = vec![Value::Int64(9_007_199_254_740_993), Value::Text("Grüße".to_owned())];
                let signals = vec![Signal { id: "OrderPlaced:1".to_owned(), attempt: 1, values }];
                let (answer,) = send.call_async(&mut store, (signal_type, signals)).await.unwrap();
                assert!(matches!(answer.as_deref(), Ok([Outcome::Sent])), "{answer:?}");
                store.into_data().published
            }
        }
    };
}

/// Returns a component that was built against `signalbus:plugin@0.1.0` when that was current. Neither
/// the component nor its rows may ever be changed.
fn kept(language: &str) -> TempPath {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/plugin-0.1.0");
    let bytes = std::fs::File::open(folder.join(format!("{language}.wasm.zst"))).unwrap();
    let unpacked = target().canonicalize().unwrap().join("tmp");
    std::fs::create_dir_all(&unpacked).unwrap();
    // A unique name, because another test may use the same component at the same time.
    let file = tempfile::Builder::new().prefix(language).suffix(".wasm").tempfile_in(unpacked).unwrap();
    zstd::stream::copy_decode(bytes, &file).unwrap();
    file.into_temp_path()
}

async fn a_plugin_of_0_1_0_keeps_working(language: &str) {
    passes(&kept(language), "tests/fixtures/plugin-0.1.0/rows.json");
}

in_each_language!(a_plugin_of_0_1_0_keeps_working: rust, c, cpp, zig, go, python, javascript, typescript);

async fn a_plugin_of_0_1_0_works_in_a_relay_of_0_1_2(language: &str) {
    let file = kept(language);
    // The export is named with the older version.
    let answer = newer::send(&file, "signalbus:plugin/bulk-sender@0.1.0").await;
    assert_eq!(answer, [("OrderPlaced:1".to_owned(), r#"{"id":9007199254740993,"customer":"Grüße"}"#.to_owned())]);
}

in_each_language!(a_plugin_of_0_1_0_works_in_a_relay_of_0_1_2: rust, c, cpp, zig, go, python, javascript, typescript);

/// It exports `ordered-sender` too, which that relay does not know, and does not import `ordered-producer`.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_0_1_1_works_in_a_relay_of_0_1_0() {
    let file = guest("publishes_list");
    let description = signalbus::component::describe(&std::fs::read(&file).unwrap()).unwrap();
    let exported = |interface: &str| description.exports.iter().any(|export| export == interface);
    assert!(exported("signalbus:plugin/ordered-sender@0.1.1"), "{:?}", description.exports);
    let answer = older::send(&file, "signalbus:plugin/bulk-sender@0.1.1").await;
    assert_eq!(answer.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["OrderPlaced:1"]);
}

#[test]
fn a_plugin_of_0_1_2_works_in_this_relay() {
    let report = tried(&guest("signalbus_test_newer_version"), ROWS);
    let cases = report["cases"].as_array().unwrap();
    let contract: Vec<_> = cases.iter().filter(|case| case["part"] == "contract").map(|case| &case["fault"]).collect();
    assert!(contract.len() > 10 && contract.iter().all(|fault| fault.is_null()), "{contract:#?}");
}

#[test]
fn an_import_that_only_0_1_2_has_is_refused_by_name() {
    let plugin = guest("additions");
    let folder = tempfile::TempDir::new().unwrap();
    let said = crate::harness::command::Project::at(folder.path()).run(&["plugin", "check", plugin.to_str().unwrap()]);
    assert_eq!(said.status, 1, "{said:#?}");
    assert!(said.stderr.contains("\"signalbus:plugin/clock@0.1.2\", which this relay does not provide"), "{said:#?}");
}

#[test]
fn an_unknown_version_is_refused_with_the_supported_ones() {
    let plugin = guest("signalbus_test_unknown_version");
    let folder = tempfile::TempDir::new().unwrap();
    let said = crate::harness::command::Project::at(folder.path()).run(&["plugin", "check", plugin.to_str().unwrap()]);
    assert_eq!(said.status, 1, "{said:#?}");
    assert!(said.stderr.contains("bulk-sender@0.9.0") && said.stderr.contains("speaks signalbus:plugin 0.1.x"), "{said:#?}");
}

/// A version of the contract may only add to the one before.
#[test]
fn each_version_keeps_every_line_of_the_one_before() {
    let read = |file: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap();
    let versions =
        ["tests/fixtures/wit-0.1.0/signalbus.wit", "wit/signalbus.wit", "tests/guests/newer-version/wit/signalbus.wit"].map(read);
    for pair in versions.windows(2) {
        let mut lines = pair[1].lines();
        for line in pair[0].lines().filter(|line| !line.starts_with("package ")) {
            assert!(lines.any(|other| other == line), "the next version does not keep: {line}");
        }
    }
}

relay!(older, "../tests/fixtures/wit-0.1.0", {}, {});

relay!(
    newer,
    "../tests/guests/newer-version/wit",
    {
        fn flush(&mut self) {}
    },
    {
        impl self::signalbus::plugin::clock::Host for Relay {
            fn now(&mut self) -> u64 {
                0
            }
        }
    }
);
