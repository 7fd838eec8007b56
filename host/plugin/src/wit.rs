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
            include signalbus:plugin/sender-plugin@0.1.1;
            include signalbus:plugin/ordered-sender-plugin@0.1.1;
        }
    ",
    world: "signalbus:host/plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: {
        "signalbus:plugin/producer": async | trappable,
        "signalbus:plugin/ordered-producer": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    require_store_data_send: true,
});
