//! Tests of what plugin authors rely on, on the native target.

#[cfg(all(feature = "chrono", feature = "decimal", feature = "time", feature = "uuid"))]
mod foreign;
mod many;
mod rows;
mod settings;
mod verdicts;

use crate::{Outcome, Signal};

/// A signal with an id and a payload.
fn signal(id: i64, payload: &str) -> Signal {
    let builder = Signal::builder("OrderPlaced").id(format!("OrderPlaced:{id}"));
    builder.column("id", id).column("payload", payload).build()
}

/// Does what the payload says.
fn obey(signal: &Signal) -> crate::Result {
    use crate::Error;
    match signal.get("payload")? {
        "sent" => Ok(Outcome::Sent),
        "retry" => Ok(Outcome::retry("busy")),
        "reject" => Err(Error::reject("broken")),
        "unavailable" => Err(Error::unavailable("down")),
        other => panic!("payload {other:?} must not be sent"),
    }
}
