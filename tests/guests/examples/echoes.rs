//! Logs `echo` for every signal, with the field `id`, and for each column NAME = `case:value` (bytes in
//! hex, floats as the hex of their bits) and NAME`.type` = the database's type.

use signalbus_guest::log::{self, Level};
use signalbus_guest::{BulkResult, Outcome, Signal, Value, each, plugin};

fn exact(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::Boolean(value) => value.to_string(),
        Value::Int64(value) => value.to_string(),
        Value::Float64(value) => format!("{:016x}", value.to_bits()),
        Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        other => other.as_text().expect("the other cases have a text").to_owned(),
    };
    format!("{}:{text}", value.case())
}

fn send(signal: &Signal) -> signalbus_guest::Result {
    let mut fields = vec![("id".to_owned(), signal.id().to_owned())];
    for (column, value) in signal.cells() {
        fields.push((column.name.clone(), exact(value)));
        fields.push((format!("{}.type", column.name), column.db_type.clone()));
    }
    log::emit(Level::Info, "echo", fields);
    Ok(Outcome::Sent)
}

fn send_all(signals: &[Signal]) -> BulkResult {
    each(signals, send)
}

plugin!(bulk send_all);
