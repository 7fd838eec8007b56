//! The file of rows: what is handed to a plugin, and what is expected of it.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::expect::Expect;
use super::recorder::Bus;
use super::{column, value};
use crate::config::{parse_duration, parse_size};
use crate::plugin::{Grants, Limits};
use crate::signal::{Column, Signal, SignalType, Value};

/// What a plugin is tried with.
#[derive(Clone, Debug)]
pub struct Suite {
    pub signal_type: String,
    pub cases: Vec<Case>,
    /// For the cases that say nothing of their own.
    pub(super) limits: Limits,
    pub(super) grants: Grants,
}

/// One batch.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub(super) rows: Vec<Row>,
    pub(super) attempt: u32,
    pub(super) attributes: Vec<(String, String)>,
    pub(super) grants: Grants,
    pub(super) limits: Limits,
    pub(super) bus: Bus,
    pub(super) expect: Option<Expect>,
}

/// The columns of a row, in their order.
pub(super) type Row = Vec<(String, Value)>;

impl Default for Suite {
    fn default() -> Self {
        let (limits, grants) = (Limits::default(), Grants::default());
        Self { signal_type: "OrderPlaced".to_owned(), cases: Vec::new(), limits, grants }
    }
}

impl Suite {
    /// Reads a file: a list of rows, or an object with `cases`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("\"{}\" cannot be read: {error}", path.display()))?;
        Self::parse(&text).map_err(|fault| format!("{}: {fault}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file = if text.trim_start().starts_with('[') {
            let rows = serde_json::from_str(text).map_err(|error| error.to_string())?;
            let case = CaseFile { name: "the rows of the file".to_owned(), rows, ..CaseFile::default() };
            File { cases: vec![case], ..File::default() }
        } else {
            serde_json::from_str::<File>(text).map_err(|error| error.to_string())?
        };
        file.suite()
    }

    /// No rows, of a signal type.
    pub fn of(signal_type: &str) -> Self {
        Self { signal_type: signal_type.to_owned(), ..Self::default() }
    }

    /// Everything that the plugin may read and reach, unless a case says otherwise.
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
        let signal = |(index, row): (usize, &Row)| Signal {
            key: key(row).unwrap_or_else(|| (index + 1).to_string()),
            order_key: order_key.iter().map(|name| value::json(&of(row, name)).to_string()).collect(),
            attempt: self.attempt,
            values: columns.iter().map(|column| of(row, &column.name)).collect(),
        };
        let signals = self.rows.iter().enumerate().map(signal).collect();
        (SignalType { name: signal_type.to_owned(), columns, attributes: self.attributes.clone() }, signals)
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn of(row: &Row, name: &str) -> Value {
    row.iter().find(|(known, _)| known == name).map_or(Value::Null, |(_, value)| value.clone())
}

/// A column `id` is the primary key.
fn key(row: &Row) -> Option<String> {
    match of(row, "id") {
        Value::Int64(id) => Some(id.to_string()),
        Value::Text(id) | Value::Uuid(id) => Some(id),
        _ => None,
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct File {
    signal_type: Option<String>,
    #[serde(default)]
    settings: Settings,
    #[serde(default)]
    secrets: Settings,
    #[serde(default)]
    grants: GrantsFile,
    timeout: Option<String>,
    memory: Option<String>,
    #[serde(default)]
    cases: Vec<CaseFile>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    name: String,
    #[serde(default)]
    rows: Vec<RowFile>,
    /// How often the rows are in the batch.
    repeat: Option<usize>,
    attempt: Option<u32>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    settings: Option<Settings>,
    secrets: Option<Settings>,
    timeout: Option<String>,
    memory: Option<String>,
    #[serde(default)]
    bus: Bus,
    expect: Option<Expect>,
}

type Settings = BTreeMap<String, serde_json::Value>;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct GrantsFile {
    #[serde(default)]
    http: Vec<String>,
    #[serde(default)]
    tcp: Vec<String>,
    #[serde(default)]
    networks: Vec<String>,
}

impl File {
    fn suite(self) -> Result<Suite, String> {
        let limits = limits(Limits::default(), self.timeout.as_deref(), self.memory.as_deref())?;
        let grants = Grants {
            settings: texts(self.settings),
            secrets: texts(self.secrets),
            http: parsed(&self.grants.http, "http")?,
            tcp: parsed(&self.grants.tcp, "tcp")?,
            networks: parsed(&self.grants.networks, "networks")?,
            ..Grants::default()
        };
        let cases = self.cases.into_iter().map(|case| {
            let place = format!("case \"{}\"", case.name);
            case.case(limits, &grants).map_err(|fault| format!("{place}: {fault}"))
        });
        let cases = cases.collect::<Result<_, _>>()?;
        let signal_type = self.signal_type.unwrap_or(Suite::default().signal_type);
        Ok(Suite { signal_type, cases, limits, grants })
    }
}

impl CaseFile {
    fn case(self, usual: Limits, grants: &Grants) -> Result<Case, String> {
        let limits = limits(usual, self.timeout.as_deref(), self.memory.as_deref())?;
        let mut grants = grants.clone();
        if let Some(settings) = self.settings {
            grants.settings = texts(settings);
        }
        if let Some(secrets) = self.secrets {
            grants.secrets = texts(secrets);
        }
        let rows = self.rows.iter().enumerate().map(|(n, row)| row.parse().map_err(|fault| format!("row {}: {fault}", n + 1)));
        let rows: Vec<Row> = rows.collect::<Result<_, _>>()?;
        let rows = std::iter::repeat_n(rows, self.repeat.unwrap_or(1)).flatten().collect();
        let (attempt, attributes) = (self.attempt.unwrap_or(1), self.attributes.into_iter().collect());
        Ok(Case { name: self.name, rows, attempt, attributes, grants, limits, bus: self.bus, expect: self.expect })
    }
}

fn limits(usual: Limits, timeout: Option<&str>, memory: Option<&str>) -> Result<Limits, String> {
    let mut limits = usual;
    if let Some(text) = timeout {
        limits.timeout = parse_duration(text).ok_or_else(|| format!("\"{text}\" is no duration; write \"500ms\" or \"30s\""))?;
    }
    if let Some(text) = memory {
        limits.memory = parse_size(text).ok_or_else(|| format!("\"{text}\" is no size; write \"64MiB\""))?;
    }
    Ok(limits)
}

fn texts(settings: Settings) -> Vec<(String, String)> {
    let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    settings.into_iter().map(|(key, value)| (key, text(value))).collect()
}

fn parsed<T: std::str::FromStr<Err = String>>(texts: &[String], key: &str) -> Result<Vec<T>, String> {
    texts.iter().map(|text| text.parse().map_err(|fault| format!("`grants.{key}`: {fault}"))).collect()
}

/// An object whose keys keep their order.
struct RowFile(Vec<(String, serde_json::Value)>);

impl RowFile {
    fn parse(&self) -> Result<Row, String> {
        let entry = |(name, json): &(String, serde_json::Value)| {
            let value = value::parse(json).map_err(|fault| format!("column \"{name}\": {fault}"))?;
            Ok((name.clone(), value))
        };
        self.0.iter().map(entry).collect()
    }
}

impl<'de> Deserialize<'de> for RowFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries(PhantomData<RowFile>);
        impl<'de> Visitor<'de> for Entries {
            type Value = RowFile;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a row: an object of columns")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RowFile, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(RowFile(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}
