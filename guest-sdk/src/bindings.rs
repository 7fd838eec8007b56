//! The generated bindings of the WIT contract; plugins must never name them.
//!
//! There are two worlds, because a component must export exactly what its world says. They share all
//! types and imports, so that the rest of the SDK needs only one set. `export` connects them to the
//! author's function.

#![allow(unsafe_code, clippy::all, missing_docs, reason = "generated: the canonical ABI works on raw memory")]

pub mod single {
    wit_bindgen::generate!({
        path: "src/wit",
        world: "sender-plugin",
        pub_export_macro: true,
        additional_derives: [PartialEq],
        generate_unused_types: true,
    });
}

pub mod many {
    wit_bindgen::generate!({
        path: "src/wit",
        world: "ordered-sender-plugin",
        pub_export_macro: true,
        with: {
            "signalbus:plugin/types@0.1.1": crate::bindings::types,
            "signalbus:plugin/log@0.1.1": crate::bindings::single::signalbus::plugin::log,
            "signalbus:plugin/config@0.1.1": crate::bindings::single::signalbus::plugin::config,
            "signalbus:plugin/producer@0.1.1": crate::bindings::single::signalbus::plugin::producer,
        },
    });
}

pub use many::signalbus::plugin::ordered_producer;
pub use single::signalbus::plugin::types;
