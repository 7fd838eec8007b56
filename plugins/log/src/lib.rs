//! Logs every signal as one record in the relay's log.

#![forbid(unsafe_code)]

use signalbus_guest::log::{self, Level};
use signalbus_guest::{BulkResult, Outcome, Signal, config, each, plugin};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default = "info")]
    level: Level,
}

fn info() -> Level {
    Level::Info
}

fn send_all(signals: &[Signal]) -> BulkResult {
    let Settings { level } = config::parse()?;
    each(signals, |signal| {
        let columns = serde_json::to_string(signal)?;
        log::emit(level, "signal", [("id", signal.id()), ("columns", &columns)]);
        Ok(Outcome::Sent)
    })
}

plugin!(bulk send_all);

#[cfg(test)]
mod tests {
    use super::*;
    use signalbus_guest::{Error, testing};

    fn signals() -> [Signal; 2] {
        [7, 8].map(|id| {
            let builder = Signal::builder("OrderPlaced").id(format!("OrderPlaced:{id}"));
            builder.column("id", id).column("total", "12.50").build()
        })
    }

    #[test]
    fn each_signal_is_one_record() {
        assert_eq!(send_all(&signals()), Ok(vec![Outcome::Sent, Outcome::Sent]));
        let records = testing::take_records();
        assert_eq!(records.len(), 2);
        assert_eq!((records[1].level, records[1].message.as_str()), (Level::Info, "signal"));
        let fields = [("id", "OrderPlaced:8"), ("columns", r#"{"id":8,"total":"12.50"}"#)];
        assert_eq!(records[1].fields, fields.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn the_level_is_a_setting() {
        testing::settings([("level", "warn")]);
        assert!(send_all(&signals()).is_ok());
        assert_eq!(testing::take_records()[0].level, Level::Warn);
    }

    #[test]
    fn a_wrong_setting_parks_the_signal_type() {
        testing::settings([("level", "loud")]);
        let error = send_all(&signals()).unwrap_err();
        assert!(error.is_outage());
        assert!(error.reason().starts_with("setting \"level\": "), "{error}");
        testing::settings([("colour", "red")]);
        assert!(send_all(&signals()).unwrap_err() != Error::retry(""));
    }
}
