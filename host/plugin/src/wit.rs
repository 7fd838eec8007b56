//! Generated bindings of the contract with guests. Arguments are borrowed, results are owned.
//!
//! The contract is in `wit/signalbus.wit`, and must not be extended here. `batch` converts to and from
//! these types.
#![allow(clippy::all, missing_docs, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package signalbus:host;
        world plugin {
            include signalbus:plugin/sender-plugin@0.1.0;
            include signalbus:plugin/bulk-sender-plugin@0.1.0;
        }
    ",
    world: "signalbus:host/plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { "signalbus:plugin/producer": async | trappable, default: trappable },
    exports: { default: async },
    require_store_data_send: true,
});
