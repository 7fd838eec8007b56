//! Publishes every signal, and skips those that the bus did not accept. With the setting `how` =
//! `reject` it rejects them; with `always` it skips accepted ones as well.

use signalbus_guest::{BulkResult, Message, Outcome, Signal, config, plugin, publish_each};

fn send_all(signals: &[Signal]) -> BulkResult {
    let how = config::get("how").unwrap_or_default();
    let given_up = if how == "reject" { Outcome::reject("the bus did not take it") } else { Outcome::Skip };
    let answers = publish_each(signals, |signal| Ok(Message::new("bus", "orders").id(signal.id()).json(signal)?));
    let answers = answers.unwrap_or_else(|_| vec![given_up.clone(); signals.len()]);
    let kept = |answer| if answer == Outcome::Sent && how != "always" { answer } else { given_up.clone() };
    Ok(answers.into_iter().map(kept).collect())
}

plugin!(bulk send_all);
