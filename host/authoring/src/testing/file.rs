//! Reads a file of rows into a suite, and reports what is wrong with it, and where.
//!
//! An error may quote the file, but never a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::expect::Expect;
use super::recorder::Bus;
use super::suite::{Case, Row, Suite};
use super::value::{self, Fields};
use signalbus_core::suggest;
use signalbus_core::units::{parse_duration, parse_size};
use signalbus_plugin::{Grants, Limits};

/// The maximum number of rows in a case, repetitions included.
const MAX_ROWS: usize = 1_000_000;

impl Suite {
    /// Reads a file: a list of rows, or an object with `cases`.
    ///
    /// # Errors
    /// If the file cannot be read, or is wrong: what is wrong, and where.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("\"{}\" cannot be read: {error}", path.display()))?;
        Self::parse(&text).map_err(|fault| format!("{}: {fault}", path.display()))
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::parsed(text).map_err(|fault| without_secrets(text, &fault))
    }

    fn parsed(text: &str) -> Result<Self, String> {
        if text.trim_start().starts_with('[') {
            let rows = serde_json::from_str(text).map_err(|error| error.to_string())?;
            let case = CaseFile { name: "the rows of the file".to_owned(), rows, ..CaseFile::default() };
            return File::default().suite(vec![case]);
        }
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let cases = file.cases.iter().enumerate().map(|(n, part)| {
            let part = part.get();
            serde_json::from_str(part).map_err(|error| format!("{}: {}", place(part, n), within(text, part, &error)))
        });
        let cases = cases.collect::<Result<_, _>>()?;
        file.suite(cases)
    }
}

/// Names the case that a part of the file describes.
fn place(part: &str, index: usize) -> String {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let named = serde_json::from_str(part).map(|Named { name }| format!("case \"{name}\""));
    named.unwrap_or_else(|_| format!("case {}", index + 1))
}

/// Words an error in a part of the text with its place in the whole.
fn within(text: &str, part: &str, error: &serde_json::Error) -> String {
    let (line, column, message) = (error.line(), error.column(), error.to_string());
    let Some(reason) = message.strip_suffix(&format!(" at line {line} column {column}")) else { return message };
    let before = &text[..part.as_ptr().addr() - text.as_ptr().addr()];
    let begun = if line == 1 { before.len() - before.rfind('\n').map_or(0, |end| end + 1) } else { 0 };
    format!("{reason} at line {} column {}", before.matches('\n').count() + line, begun + column)
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    signal_type: Option<String>,
    #[serde(default, borrow)]
    settings: Settings<'a>,
    #[serde(borrow)]
    secrets: Option<&'a RawValue>,
    #[serde(default)]
    grants: GrantsFile,
    timeout: Option<String>,
    memory: Option<String>,
    #[serde(default, borrow)]
    cases: Vec<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct CaseFile<'a> {
    name: String,
    #[serde(default, borrow)]
    rows: Vec<Fields<'a>>,
    /// How many times the batch contains the rows.
    repeat: Option<usize>,
    attempt: Option<u32>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(borrow)]
    settings: Option<Settings<'a>>,
    #[serde(borrow)]
    secrets: Option<&'a RawValue>,
    timeout: Option<String>,
    memory: Option<String>,
    #[serde(default)]
    bus: Bus,
    expect: Option<Expect>,
}

type Settings<'a> = BTreeMap<String, &'a RawValue>;

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

impl File<'_> {
    fn suite(self, cases: Vec<CaseFile<'_>>) -> Result<Suite, String> {
        let limits = limits(Limits::default(), self.timeout.as_deref(), self.memory.as_deref())?;
        let grants = Grants {
            settings: texts(self.settings)?,
            secrets: self.secrets.map_or_else(|| Ok(Vec::new()), secrets)?,
            http: parsed(&self.grants.http, "http")?,
            tcp: parsed(&self.grants.tcp, "tcp")?,
            networks: parsed(&self.grants.networks, "networks")?,
            ..Grants::default()
        };
        let cases = cases.into_iter().map(|case| {
            let place = format!("case \"{}\"", case.name);
            case.case(limits, &grants).map_err(|fault| format!("{place}: {fault}"))
        });
        let cases = cases.collect::<Result<_, _>>()?;
        let signal_type = self.signal_type.unwrap_or(Suite::default().signal_type);
        Ok(Suite { signal_type, cases, limits, grants })
    }
}

impl CaseFile<'_> {
    fn case(self, usual: Limits, grants: &Grants) -> Result<Case, String> {
        let limits = limits(usual, self.timeout.as_deref(), self.memory.as_deref())?;
        let mut grants = grants.clone();
        if let Some(settings) = self.settings {
            grants.settings = texts(settings)?;
        }
        if let Some(json) = self.secrets {
            grants.secrets = secrets(json)?;
        }
        let rows = self.rows.iter().enumerate().map(|(n, row)| parse(row).map_err(|fault| format!("row {}: {fault}", n + 1)));
        let rows: Vec<Row> = rows.collect::<Result<_, _>>()?;
        if self.repeat == Some(0) {
            return Err("`repeat` is 0; for an empty batch write \"rows\": []".to_owned());
        }
        attributes(&self.attributes, &rows)?;
        if let Some(fault) = self.expect.as_ref().and_then(Expect::contradiction) {
            return Err(format!("`expect`: {fault}"));
        }
        let (written, times) = (rows.len(), self.repeat.unwrap_or(1));
        if self.repeat.is_some() && written == 0 {
            return Err("`repeat` has no rows to repeat; for an empty batch remove it".to_owned());
        }
        if written.saturating_mul(times) > MAX_ROWS {
            return Err(format!("{written} rows repeated {times} times exceed the limit of {MAX_ROWS} rows in a case"));
        }
        let rows = std::iter::repeat_n(rows, times).flatten().collect();
        let (attempt, attributes) = (self.attempt.unwrap_or(1), self.attributes.into_iter().collect());
        let (name, bus, expect) = (self.name, self.bus, self.expect);
        Ok(Case { name, rows, written, attempt, attributes, grants, limits, bus, expect })
    }
}

/// Rejects attributes that the relay would never pass to a plugin.
fn attributes(attributes: &BTreeMap<String, String>, rows: &[Row]) -> Result<(), String> {
    if let Some(ordered) = attributes.get("ordered").filter(|ordered| !["true", "false"].contains(&ordered.as_str())) {
        return Err(format!("attribute `ordered` is \"{ordered}\"; expected \"true\" or \"false\""));
    }
    if attributes.contains_key("order_key") && attributes.get("ordered").is_none_or(|ordered| ordered != "true") {
        return Err("attribute `order_key` requires `ordered`; add \"ordered\": \"true\"".to_owned());
    }
    let columns: BTreeSet<&str> = rows.iter().flatten().map(|(name, _)| name.as_str()).collect();
    let mut names = attributes.get("order_key").into_iter().flat_map(|names| names.split(','));
    match names.find(|name| !rows.is_empty() && !columns.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let nearest = suggest::nearest(name, columns.iter().copied());
            Err(format!("attribute `order_key` names column \"{name}\", which no row has{nearest}"))
        }
    }
}

fn limits(usual: Limits, timeout: Option<&str>, memory: Option<&str>) -> Result<Limits, String> {
    let mut limits = usual;
    if let Some(text) = timeout {
        limits.timeout = parse_duration(text)
            .ok_or_else(|| format!("`timeout`: invalid duration \"{text}\"; expected e.g. \"500ms\" or \"30s\""))?;
        if limits.timeout.is_zero() {
            return Err(format!("`timeout` is \"{text}\", which leaves no time for a call; expected e.g. \"500ms\" or \"30s\""));
        }
    }
    if let Some(text) = memory {
        limits.memory = parse_size(text).ok_or_else(|| format!("`memory`: invalid size \"{text}\"; expected e.g. \"64MiB\""))?;
        if limits.memory == 0 {
            return Err(format!("`memory` is \"{text}\", too little for any plugin; expected e.g. \"64MiB\""));
        }
    }
    Ok(limits)
}

fn texts(settings: Settings<'_>) -> Result<Vec<(String, String)>, String> {
    let text = |(key, value): (String, &RawValue)| match value::plain(value.get()) {
        Ok(text) => Ok((key, text)),
        Err(fault) => Err(format!("\"{key}\": {fault}")),
    };
    settings.into_iter().map(text).collect()
}

/// Reads secrets. Its errors never quote them.
fn secrets(json: &RawValue) -> Result<Vec<(String, String)>, String> {
    let wrong = |_| "`secrets` must be an object of strings, as in {\"name\": \"text\"}".to_owned();
    let pairs = match json.get().as_bytes() {
        [b'{', ..] => serde_json::from_str(json.get()).map_err(|_| ()),
        _ => Err(()),
    };
    texts(pairs.map_err(wrong)?)
}

/// Redacts a fault: it may quote a value, or a string in a place where serde expected something else.
fn without_secrets(text: &str, fault: &str) -> String {
    #[derive(Deserialize)]
    struct Known<'a> {
        #[serde(borrow)]
        secrets: Option<&'a RawValue>,
        #[serde(default, borrow)]
        cases: Option<&'a RawValue>,
    }
    // Serde would take a list for the values of the fields.
    let object = |part: &&str| part.trim_start().starts_with('{');
    let known = |part| Some(part).filter(object).and_then(|part| serde_json::from_str(part).ok());
    let read = |part| known(part).unwrap_or(Known { secrets: None, cases: None });
    let file = read(text);
    let cases: Vec<&RawValue> = file.cases.and_then(|cases| serde_json::from_str(cases.get()).ok()).unwrap_or_default();
    let parts = cases.into_iter().map(|case| read(case.get()));
    let known = [file.secrets].into_iter().chain(parts.map(|case| case.secrets)).flatten();
    let known = known.flat_map(|json| secrets(json).unwrap_or_default());
    // As they are, as JSON escapes them, and as serde quotes them.
    let spelt = known.flat_map(|(key, secret)| {
        let quoted = [serde_json::Value::from(secret.as_str()).to_string(), format!("{secret:?}")];
        let inner = quoted.map(|text| text[1..text.len() - 1].to_owned());
        [secret].into_iter().chain(inner).map(move |secret| (key.clone(), secret))
    });
    Grants { secrets: spelt.collect(), ..Grants::default() }.redact(fault).into_owned()
}

fn parsed<T: std::str::FromStr<Err = String>>(texts: &[String], key: &str) -> Result<Vec<T>, String> {
    texts.iter().map(|text| text.parse().map_err(|fault| format!("`grants.{key}`: {fault}"))).collect()
}

fn parse<'r>(Fields(row): &'r Fields<'_>) -> Result<Row, String> {
    let mut names = BTreeSet::new();
    let entry = |(name, json): &'r (String, &RawValue)| {
        if !names.insert(name) {
            return Err(format!("duplicate column \"{name}\""));
        }
        let value = value::parse(json).map_err(|fault| format!("column \"{name}\": {fault}"))?;
        Ok((name.clone(), value))
    };
    row.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        Suite::parse(text).unwrap_err()
    }

    #[test]
    fn a_fault_is_reported_with_its_case_and_its_place_in_the_file() {
        let text = "{\"cases\": [\n  {\"name\": \"a\"}, {\"name\": \"b\", \"rows\": 5}\n]}";
        assert_eq!(fault(text), "case \"b\": invalid type: integer `5`, expected a sequence at line 2 column 40");
        let text = "{\"cases\": [{\"name\": \"a\",\n\"rows\": []},\n{\"rows\": [],\n \"attempt\": -1}]}";
        assert!(fault(text).starts_with("case 2: invalid value: integer `-1`"), "{}", fault(text));
        assert!(fault(text).ends_with(" at line 4 column 14"), "{}", fault(text));
        assert!(fault("{\"cases\": [{}]}").starts_with("case 1: missing field `name`"));
    }

    #[test]
    fn unknown_words_are_reported_with_their_case() {
        let case = |keys: &str| fault(&format!("{{\"cases\": [\n{{\"name\": \"a\", {keys}}}]}}"));
        let words = "case \"a\": `outcomes`, row 1: unknown outcome \"snet\"; expected one of sent, skip, retry, reject, held; did you mean \"sent\"?";
        let text = case(r#""expect": {"outcomes": ["snet"]}"#);
        assert!(text.starts_with(words) && text.contains(" at line 2 column "), "{text}");
        let words =
            "case \"a\": unknown `bus` answer \"full\"; expected one of sent, retry, reject, unavailable, misconfigured, silent";
        assert!(case(r#""bus": "full""#).starts_with(words), "{}", case(r#""bus": "full""#));
        assert!(case(r#""bus": ["sent", "full"]"#).starts_with(words));
        assert!(case(r#""bus": 5"#).starts_with("case \"a\": `bus` is 5; expected a word or a list of words"));
    }

    #[test]
    fn limits_of_nothing_are_rejected() {
        let case = |keys: &str| fault(&format!("{{\"cases\": [{{\"name\": \"a\", \"rows\": [], {keys}}}]}}"));
        assert!(case("\"timeout\": \"0ms\"").starts_with("case \"a\": `timeout` is \"0ms\""));
        assert!(case("\"memory\": \"0.5B\"").starts_with("case \"a\": `memory` is \"0.5B\""));
        assert!(case("\"repeat\": 0").starts_with("case \"a\": `repeat` is 0; for an empty batch write"));
        assert!(fault("{\"timeout\": \"0s\"}").starts_with("`timeout` is \"0s\""));
    }

    #[test]
    fn batches_that_are_too_large_are_rejected() {
        let case = |rows: &str, repeat: &str| {
            Suite::parse(&format!("{{\"cases\": [{{\"name\": \"a\", \"rows\": {rows}, \"repeat\": {repeat}}}]}}"))
        };
        let words = "case \"a\": `repeat` has no rows to repeat; for an empty batch remove it";
        assert_eq!(case("[]", "99999999999999").unwrap_err(), words);
        let words = "case \"a\": 2 rows repeated 500001 times exceed the limit of 1000000 rows in a case";
        assert_eq!(case("[{}, {}]", "500001").unwrap_err(), words);
        assert!(case("[{}, {}]", "18446744073709551615").unwrap_err().ends_with("exceed the limit of 1000000 rows in a case"));
        assert_eq!(case("[{}, {}]", "500000").unwrap().cases[0].rows.len(), 1_000_000);
    }

    #[test]
    fn no_fault_quotes_a_secret() {
        let words = "`secrets` must be an object of strings, as in {\"name\": \"text\"}";
        for json in ["\"hunter22x\"", "[\"hunter22x\"]", "{\"\\ud800hunter22x\": \"hunter22x\"}", "5"] {
            assert_eq!(fault(&format!("{{\"secrets\": {json}}}")), words);
            assert_eq!(
                fault(&format!("{{\"cases\": [{{\"name\": \"a\", \"secrets\": {json}}}]}}")),
                format!("case \"a\": {words}")
            );
        }
        let of_file = |rest: &str| fault(&format!(r#"{{"secrets": {{"token": "hunt\"er\\22é"}}, {rest}}}"#));
        let of_case = |rest: &str| {
            fault(&format!(r#"{{"cases": [{{"name": "b"}}, {{"name": "a", "secrets": {{"token": "hunt\"er\\22é"}}, {rest}}}]}}"#))
        };
        let number = r#""rows": [{"n": {"int64": "hunt\"er\\22\u00e9"}}]"#;
        let texts = [
            of_file(&format!(r#""cases": [{{"name": "a", {number}}}]"#)),
            of_file(r#""cases": [{"name": "a", "rows": "hunt\"er\\22é"}]"#),
            of_file(r#""cases": "hunt\"er\\22é""#),
            of_file(r#""grants": {"http": ["hunt\"er\\22é"]}"#),
            of_case(number),
            of_case(r#""timeout": "hunt\"er\\22é""#),
            of_case(r#""expect": "hunt\"er\\22é""#),
        ];
        assert!(fault(r#"[{"n": 18446744073709551616}]"#).contains("18446744073709551616 does not fit"), "rows are not secret");
        assert!(texts.iter().all(|text| text.contains("[secret]") && !text.contains("er\\")), "{texts:#?}");
    }

    #[test]
    fn keys_are_joined_as_the_relay_joins_them() {
        let rows =
            r#"[{"a": 1, "b": "23"}, {"a": 12, "b": "3"}, {"a": "x,y", "b": {"decimal": "1.50"}}, {"a": null, "b": true}]"#;
        let text =
            format!(r#"{{"cases": [{{"name": "a", "attributes": {{"ordered": "true", "order_key": "a,b"}}, "rows": {rows}}}]}}"#);
        let (_, signals) = Suite::parse(&text).unwrap().cases[0].signals("OrderPlaced");
        let keys: Vec<&str> = signals.iter().map(|signal| signal.order_key.as_str()).collect();
        assert_eq!(keys, ["1,23", "12,3", "x%2Cy,1.50", ",true"]);
        let suite = Suite::parse(r#"{"cases": [{"name": "a", "rows": [{"id": "x:1,y"}]}]}"#).unwrap();
        assert_eq!(suite.cases[0].signals("OrderPlaced").1[0].key, "x%3A1%2Cy");
    }

    #[test]
    fn contradictions_are_rejected() {
        let case = |keys: &str| Suite::parse(&format!(r#"{{"cases": [{{"name": "a", {keys}}}]}}"#)).map(|_| ());
        let fault = |keys: &str| case(keys).unwrap_err();
        assert_eq!(fault(r#""rows": [{"id": 1}, {"id": 1, "n": 2, "id": 3}]"#), "case \"a\": row 2: duplicate column \"id\"");
        let words = "case \"a\": `expect`: `published` is 2, but `messages` lists 1; remove `published`";
        assert_eq!(fault(r#""expect": {"published": 2, "messages": [{}]}"#), words);
        assert_eq!(case(r#""expect": {"published": 1, "messages": [{}]}"#), Ok(()));
        let both = fault(r#""expect": {"outage": "unavailable", "outcomes": "sent"}"#);
        assert!(both.starts_with("case \"a\": `expect`: `outage` and `outcomes` are both expected"), "{both}");
        let words = "case \"a\": attribute `ordered` is \"yes\"; expected \"true\" or \"false\"";
        assert_eq!(fault(r#""attributes": {"ordered": "yes"}"#), words);
        let words = "case \"a\": attribute `order_key` requires `ordered`; add \"ordered\": \"true\"";
        assert_eq!(fault(r#""attributes": {"order_key": "id"}, "rows": [{"id": 1}]"#), words);
        let key = |names: &str, rows: &str| {
            case(&format!(r#""attributes": {{"ordered": "true", "order_key": "{names}"}}, "rows": {rows}"#))
        };
        let words = "case \"a\": attribute `order_key` names column \"custmer\", which no row has; did you mean \"customer\"?";
        assert_eq!(key("id,custmer", r#"[{"id": 1, "customer": 2}]"#).unwrap_err(), words);
        assert_eq!(key("id,customer", r#"[{"id": 1}, {"customer": 2}]"#), Ok(()));
        assert_eq!(key("customer", "[]"), Ok(()));
    }

    #[test]
    fn integers_that_do_not_fit_are_rejected_with_their_place() {
        let words = "case \"the rows of the file\": row 2: column \"n\": 18446744073709551616 does not fit in 64 bits; write {\"decimal\"";
        assert!(fault("[{\"n\": 1}, {\"n\": 18446744073709551616}]").starts_with(words));
        let suite = Suite::parse("{\"settings\": {\"n\": 18446744073709551616, \"t\": \"x\"}}").unwrap();
        assert!(fault(r#"{"secrets": {"token": "hunter22\ud800"}}"#).starts_with("\"token\": invalid string: "));
        assert_eq!(suite.grants.settings, [("n".into(), "18446744073709551616".into()), ("t".into(), "x".into())]);
    }
}
