//! Reads typed values from TOML, and collects every problem with its place instead of stopping at the
//! first.
//!
//! A problem's text must never quote a value that may be secret. Next: `config`, which knows the keys.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use signalbus_core::suggest;
use signalbus_core::units::{parse_duration, parse_size};

/// The problems found so far.
pub(super) struct Faults<'a> {
    file: &'a Path,
    text: &'a str,
    found: Vec<(usize, String)>,
}

impl<'a> Faults<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text, found: Vec::new() }
    }

    pub(super) fn add(&mut self, offset: usize, message: impl AsRef<str>) {
        self.found.push((offset, format!("{}: {}", self.place(offset), message.as_ref())));
    }

    /// Formats an offset as file, line and column.
    pub(super) fn place(&self, offset: usize) -> String {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{}:{line}:{column}", self.file.display())
    }

    /// Returns the messages in the order of the file.
    pub(super) fn into_texts(mut self) -> Vec<String> {
        self.found.sort();
        self.found.into_iter().map(|(_, text)| text).collect()
    }
}

/// A table of the file, or several read as one: the first table that has a key wins.
#[derive(Clone)]
pub(super) struct Section<'t> {
    /// Dotted path, such as `signals.OrderPlaced.retry`.
    path: String,
    offset: usize,
    tables: Vec<&'t DeTable<'t>>,
}

/// An entry of a list: a string, or a table.
pub(super) enum Item<'t> {
    Text(String),
    Table(Section<'t>),
}

/// A value and its offset in the file.
pub(super) type Found<'t> = (usize, &'t DeValue<'t>);

impl<'t> Section<'t> {
    pub(super) fn new(path: &str, offset: usize, table: &'t DeTable<'t>) -> Self {
        Self { path: path.to_owned(), offset, tables: vec![table] }
    }

    /// Falls back to `other` for keys that this section does not have.
    pub(super) fn or(mut self, other: Option<&Self>) -> Self {
        self.tables.extend(other.iter().flat_map(|section| section.tables.iter().copied()));
        self
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// Returns the offset of a key's value, or that of the section if the key is missing.
    pub(super) fn place(&self, key: &str) -> usize {
        self.find(key).map_or(self.offset, |(offset, _)| offset)
    }

    /// Returns the dotted path of a key.
    pub(super) fn named(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports every key of the first table that is not in `known`.
    pub(super) fn refuse_unknown(&self, known: &[&str], faults: &mut Faults<'_>) {
        for key in self.tables[0].keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let nearest = suggest::nearest(name, known.iter().copied());
                faults.add(key.span().start, format!("unknown key `{}`{nearest}", self.named(name)));
            }
        }
    }

    pub(super) fn find(&self, key: &str) -> Option<Found<'t>> {
        let value = self.tables.iter().find_map(|table| table.get(key))?;
        Some((value.span().start, value.get_ref()))
    }

    /// Returns the section under `key`, combining those of all tables that are read as one.
    pub(super) fn section(&self, key: &str, faults: &mut Faults<'_>) -> Option<Self> {
        let mut section: Option<Self> = None;
        for value in self.tables.iter().filter_map(|table| table.get(key)) {
            match value.get_ref() {
                DeValue::Table(table) => match &mut section {
                    Some(section) => section.tables.push(table),
                    None => section = Some(Self::new(&self.named(key), value.span().start, table)),
                },
                other => self.wrong(key, value.span().start, "a table", other, faults),
            }
        }
        section
    }

    /// Returns every key and value in the order of the file; an earlier table's key wins.
    pub(super) fn entries(&self) -> Vec<(String, Found<'t>)> {
        let mut entries: Vec<(String, Found<'t>)> = Vec::new();
        for table in &self.tables {
            let mut these: Vec<_> = table.iter().collect();
            these.sort_by_key(|(key, _)| key.span().start);
            for (key, value) in these {
                let name = key.get_ref().to_string();
                if entries.iter().all(|(known, _)| *known != name) {
                    entries.push((name, (value.span().start, value.get_ref())));
                }
            }
        }
        entries
    }

    pub(super) fn string(&self, key: &str, faults: &mut Faults<'_>) -> Option<String> {
        match self.find(key)? {
            (at, DeValue::String(text)) => expanded(text, at, faults),
            (at, other) => {
                self.wrong(key, at, "a string", other, faults);
                None
            }
        }
    }

    /// A URL. The name and the password before the host may hold any character: a variable is percent-encoded there.
    pub(super) fn url(&self, key: &str, faults: &mut Faults<'_>) -> Option<String> {
        match self.find(key)? {
            (at, DeValue::String(text)) => substituted(text, at, faults, |before, behind| {
                let in_authority = before.contains("://");
                in_authority && behind.split('/').next().is_some_and(|authority| authority.contains('@'))
            }),
            _ => self.string(key, faults),
        }
    }

    pub(super) fn boolean(&self, key: &str, default: bool, faults: &mut Faults<'_>) -> bool {
        match self.find(key) {
            None => default,
            Some((_, DeValue::Boolean(value))) => *value,
            Some((at, other)) => {
                self.wrong(key, at, "true or false", other, faults);
                default
            }
        }
    }

    /// Reads an integer of at least `min`.
    pub(super) fn number(&self, key: &str, default: u32, min: u32, faults: &mut Faults<'_>) -> u32 {
        let Some((at, value)) = self.find(key) else { return default };
        let number = match value {
            DeValue::Integer(number) => number.to_string().replace('_', "").parse::<u32>().ok(),
            _ => None,
        };
        number.filter(|number| *number >= min).unwrap_or_else(|| {
            faults.add(at, format!("`{}` must be an integer of at least {min}", self.named(key)));
            default
        })
    }

    pub(super) fn fraction(&self, key: &str, default: f64, faults: &mut Faults<'_>) -> f64 {
        let Some((at, value)) = self.find(key) else { return default };
        let number = match value {
            DeValue::Integer(number) => number.to_string().parse().ok(),
            DeValue::Float(number) => number.to_string().parse().ok(),
            _ => None,
        };
        number.unwrap_or_else(|| {
            faults.add(at, format!("`{}` must be a number", self.named(key)));
            default
        })
    }

    /// Reads a duration such as `"30s"`, `"250ms"`, `"10m"`, `"1h"`.
    pub(super) fn duration(&self, key: &str, default: Duration, faults: &mut Faults<'_>) -> Duration {
        let Some((at, _)) = self.find(key) else { return default };
        let Some(text) = self.string(key, faults) else { return default };
        parse_duration(&text).unwrap_or_else(|| {
            faults.add(
                at,
                format!("`{}`: invalid duration \"{text}\"; write \"500ms\", \"30s\", \"10m\" or \"1h\"", self.named(key)),
            );
            default
        })
    }

    /// Reads a size such as `"64MiB"`, in bytes.
    pub(super) fn size(&self, key: &str, default: usize, faults: &mut Faults<'_>) -> usize {
        let Some((at, _)) = self.find(key) else { return default };
        let Some(text) = self.string(key, faults) else { return default };
        parse_size(&text).unwrap_or_else(|| {
            faults.add(at, format!("`{}`: invalid size \"{text}\"; write \"512KiB\", \"64MiB\" or \"1GiB\"", self.named(key)));
            default
        })
    }

    pub(super) fn strings(&self, key: &str, faults: &mut Faults<'_>) -> Vec<String> {
        self.items(key, faults).into_iter().map(|(_, text)| text).collect()
    }

    /// Reads a list of strings and parses each of them.
    pub(super) fn parsed<T: FromStr<Err = String>>(&self, key: &str, faults: &mut Faults<'_>) -> Vec<T> {
        let mut parsed = Vec::new();
        for (at, text) in self.items(key, faults) {
            match text.parse() {
                Ok(value) => parsed.push(value),
                Err(fault) => faults.add(at, format!("`{}`: {fault}", self.named(key))),
            }
        }
        parsed
    }

    /// Reads a list of strings and tables, each with its offset.
    pub(super) fn mixed(&self, key: &str, faults: &mut Faults<'_>) -> Vec<(usize, Item<'t>)> {
        const WANTED: &str = "a list of strings or tables";
        let Some((at, value)) = self.find(key) else { return Vec::new() };
        let DeValue::Array(items) = value else {
            self.wrong(key, at, WANTED, value, faults);
            return Vec::new();
        };
        let mut mixed = Vec::new();
        for item in items.iter() {
            let at = item.span().start;
            match item.get_ref() {
                DeValue::String(text) => mixed.extend(expanded(text, at, faults).map(|text| (at, Item::Text(text)))),
                DeValue::Table(table) => mixed.push((at, Item::Table(Self::new(&self.named(key), at, table)))),
                other => self.wrong(key, at, WANTED, other, faults),
            }
        }
        mixed
    }

    /// Reads the strings of a list, each with its offset.
    fn items(&self, key: &str, faults: &mut Faults<'_>) -> Vec<(usize, String)> {
        let Some((at, value)) = self.find(key) else { return Vec::new() };
        let DeValue::Array(items) = value else {
            self.wrong(key, at, "a list of strings", value, faults);
            return Vec::new();
        };
        let mut strings = Vec::new();
        for item in items.iter() {
            let at = item.span().start;
            match item.get_ref() {
                DeValue::String(text) => strings.extend(expanded(text, at, faults).map(|text| (at, text))),
                other => self.wrong(key, at, "a list of strings", other, faults),
            }
        }
        strings
    }

    /// Like [`texts`](Self::texts), but also accepts lists and tables, as JSON.
    pub(super) fn documents(&self, faults: &mut Faults<'_>) -> Vec<(String, String)> {
        let mut texts = Vec::new();
        for (key, (at, value)) in self.entries() {
            let text = match value {
                DeValue::Array(_) | DeValue::Table(_) => json(value, at, faults).map(|value| value.to_string()),
                _ => scalar(value, at, faults),
            };
            texts.extend(text.map(|text| (key, text)));
        }
        texts
    }

    /// Reads every entry as text; numbers and booleans keep their TOML form.
    pub(super) fn texts(&self, faults: &mut Faults<'_>) -> Vec<(String, String)> {
        let mut texts = Vec::new();
        for (key, (at, value)) in self.entries() {
            let text = match value {
                DeValue::Array(_) | DeValue::Table(_) | DeValue::Datetime(_) => {
                    self.wrong(&key, at, "a string, a number or a boolean", value, faults);
                    None
                }
                _ => scalar(value, at, faults),
            };
            texts.extend(text.map(|text| (key, text)));
        }
        texts
    }

    fn wrong(&self, key: &str, at: usize, wanted: &str, found: &DeValue<'_>, faults: &mut Faults<'_>) {
        let found = match found {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        faults.add(at, format!("`{}` must be {wanted}, not {found}", self.named(key)));
    }
}

/// Returns a value other than a list or a table as text.
fn scalar(value: &DeValue<'_>, at: usize, faults: &mut Faults<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => expanded(text, at, faults),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Datetime(time) => Some(time.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Converts a value to JSON; dates and special numbers become strings.
fn json(value: &DeValue<'_>, at: usize, faults: &mut Faults<'_>) -> Option<serde_json::Value> {
    let number = |text: &str| text.replace('_', "").parse().ok().map(serde_json::Value::Number);
    match value {
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref(), item.span().start, faults)).collect(),
        DeValue::Table(table) => {
            let entry = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                Some((key.get_ref().to_string(), json(value.get_ref(), value.span().start, faults)?))
            };
            table.iter().map(entry).collect()
        }
        DeValue::Boolean(value) => Some((*value).into()),
        other => {
            let text = scalar(other, at, faults)?;
            let numeric = matches!(other, DeValue::Integer(_) | DeValue::Float(_)).then(|| number(&text)).flatten();
            Some(numeric.unwrap_or(serde_json::Value::String(text)))
        }
    }
}

/// Replaces every `${NAME}` with the value of the environment variable; `$${` stands for `${`.
fn expanded(text: &str, at: usize, faults: &mut Faults<'_>) -> Option<String> {
    substituted(text, at, faults, |_, _| false)
}

/// Puts the values of environment variables in the place of `${NAME}`, percent-encoded where `encodes` says so of what
/// stands before and behind one.
fn substituted(text: &str, at: usize, faults: &mut Faults<'_>, encodes: impl Fn(&str, &str) -> bool) -> Option<String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            expanded.push_str(&rest[..start]);
            expanded.push('{');
            rest = &rest[start + 2..];
            continue;
        }
        let Some(end) = rest[start..].find('}') else { break };
        let name = &rest[start + 2..start + end];
        expanded.push_str(&rest[..start]);
        rest = &rest[start + end + 1..];
        match std::env::var(name) {
            Ok(value) if encodes(&text[..text.len() - rest.len()], rest) => {
                expanded.extend(percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC));
            }
            Ok(value) => expanded.push_str(&value),
            Err(_) => {
                faults.add(at, format!("the environment variable {name} is not set"));
                return None;
            }
        }
    }
    expanded.push_str(rest);
    Some(expanded)
}

/// Parses the text of a file, reporting invalid TOML like any other problem.
pub(super) fn parse<'t>(text: &'t str, faults: &mut Faults<'_>) -> Spanned<DeTable<'t>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        faults.add(error.span().map_or(0, |span| span.start), error.message());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_variables_are_expanded() {
        let path = Path::new("x.toml");
        let mut faults = Faults::new(path, "");
        let home = std::env::var("PATH").unwrap();
        assert_eq!(expanded("a${PATH}b", 0, &mut faults), Some(format!("a{home}b")));
        assert_eq!(expanded("$${PATH}", 0, &mut faults), Some("${PATH}".into()));
        assert_eq!(expanded("${SIGNALBUS_NOT_SET}", 0, &mut faults), None);
        assert_eq!(faults.into_texts(), ["x.toml:1:1: the environment variable SIGNALBUS_NOT_SET is not set"]);
    }
}
