//! Exports `sender`, which the SDK does no longer: takes one signal per call. Panics if the column `payload` is
//! `poison`, and never ends if it is `spin`.

use exports::signalbus::plugin::sender::{Guest, Outage, Outcome, Signal, SignalType};
use signalbus::plugin::types::Value;

wit_bindgen::generate!({ path: "../../wit", world: "sender-plugin" });

struct Plugin;

impl Guest for Plugin {
    fn send_signalbus_message(_: SignalType, signal: Signal) -> Result<Outcome, Outage> {
        let says = |word: &str| signal.values.iter().any(|value| matches!(value, Value::Text(text) if text == word));
        if says("poison") {
            panic!("poisoned by {:?}", signal.id);
        }
        if says("spin") {
            signalbus_test_guests::spin();
        }
        Ok(Outcome::Sent)
    }
}

#[cfg(target_family = "wasm")]
export!(Plugin);
