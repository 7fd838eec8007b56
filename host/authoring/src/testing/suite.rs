//! A suite: the cases to run a plugin with, and what is expected of each.
//!
//! Knows no file format. `file` reads a suite, `contract` adds cases of its own, `testing` runs them.

use super::expect::Expect;
use super::recorder::Bus;
use super::{column, value};
use signalbus_core::key::join_key;
use signalbus_core::signal::{Column, Signal, SignalType, Value};
use signalbus_plugin::{Grants, Limits};

/// The cases to run a plugin with.
#[derive(Clone, Debug)]
pub struct Suite {
    pub signal_type: String,
    pub cases: Vec<Case>,
    /// For the cases without limits or grants of their own.
    pub(super) limits: Limits,
    pub(super) grants: Grants,
}

/// One case: a batch, and the expected result.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub(super) rows: Vec<Row>,
    /// The number of rows in the file; the other rows repeat them.
    pub(super) written: usize,
    pub(super) attempt: u32,
    pub(super) attributes: Vec<(String, String)>,
    pub(super) grants: Grants,
    pub(super) limits: Limits,
    pub(super) bus: Bus,
    pub(super) expect: Option<Expect>,
}

/// The columns of a row, in order.
pub(super) type Row = Vec<(String, Value)>;

impl Default for Suite {
    fn default() -> Self {
        let (limits, grants) = (Limits::default(), Grants::default());
        Self { signal_type: "OrderPlaced".to_owned(), cases: Vec::new(), limits, grants }
    }
}

impl Suite {
    /// A suite without cases, for a signal type.
    pub fn for_type(signal_type: &str) -> Self {
        Self { signal_type: signal_type.to_owned(), ..Self::default() }
    }

    /// What the plugin may read and reach, unless a case says otherwise.
    pub fn grants(&self) -> Grants {
        self.grants.clone()
    }
}

impl Case {
    /// The batch as the relay would hand it over.
    pub(super) fn signals(&self, signal_type: &str) -> (SignalType, Vec<Signal>) {
        let mut columns: Vec<Column> = Vec::new();
        let named = self.rows.iter().flatten();
        for (name, value) in named {
            match columns.iter_mut().find(|known| known.name == *name) {
                None => columns.push(column(name, value)),
                Some(known) if known.db_type == "text" => *known = column(name, value),
                Some(_) => {}
            }
        }
        let order_key: Vec<&str> = self.attribute("order_key").map(|names| names.split(',').collect()).unwrap_or_default();
        let signal = |(index, row): (usize, &Row)| {
            let key = key(row).unwrap_or_else(|| (index + 1).to_string());
            Signal {
                id: format!("{signal_type}:{key}"),
                key,
                order_key: joined(row, &order_key),
                attempt: self.attempt,
                values: columns.iter().map(|column| cell(row, &column.name)).collect(),
            }
        };
        let signals = self.rows.iter().enumerate().map(signal).collect();
        (SignalType { name: signal_type.to_owned(), columns, attributes: self.attributes.clone() }, signals)
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn cell(row: &Row, name: &str) -> Value {
    row.iter().find(|(known, _)| known == name).map_or(Value::Null, |(_, value)| value.clone())
}

/// The values of columns, joined as the relay joins keys.
fn joined(row: &Row, names: &[&str]) -> String {
    let parts: Vec<String> = names.iter().map(|name| value::text(&cell(row, name))).collect();
    join_key(&parts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The primary key: the column `id`, if there is one.
fn key(row: &Row) -> Option<String> {
    match cell(row, "id") {
        Value::Int64(id) => Some(id.to_string()),
        Value::Text(id) | Value::Uuid(id) => Some(join_key(&[&id])),
        _ => None,
    }
}
