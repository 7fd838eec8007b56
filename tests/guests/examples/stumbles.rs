//! Sends each signal, and logs `counted` with the `ids` that it sent. About one signal in 23 needs three
//! attempts.

use signalbus_guest::{BulkResult, Outcome, Signal, each, log, plugin};

fn send_all(signals: &[Signal]) -> BulkResult {
    let mut sent = Vec::new();
    let answer = each(signals, |signal| {
        let number: u64 = signal.id().bytes().fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        if number % 23 == 0 && signal.attempt() < 3 {
            return Ok(Outcome::retry("it stumbled"));
        }
        sent.push(signal.id().to_owned());
        Ok(Outcome::Sent)
    });
    // A longer record would be cut.
    for sent in sent.chunks(80) {
        log::info!("counted", ids = sent.join(","));
    }
    answer
}

plugin!(bulk send_all);
