//! What every plugin has to stand, whatever it sends.

use std::time::Duration;

use super::recorder::{Answer, Bus};
use super::redactor::{Redactor, cut};
use super::suite::{Case, Row, Suite};
use super::{CaseResult, answer, expect, value};
use signalbus_core::signal::{Outcome, Value};
use signalbus_plugin::Limits;

/// What a case of the contract asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// An answer, for each row, without a trap.
    Answer,
    /// No row counts as sent, if it was published: the bus will never take it.
    NotSent,
    /// No row is given up either, if it was published: the bus may take it another time.
    Kept,
    /// The call is ended in time, if it waits for the bus.
    Deadline,
    /// The call is ended, since it asks for more memory than it may have.
    Memory,
}

/// Memory beyond what the plugin has needed, for the case that asks for too much.
pub(super) const HEADROOM: usize = 1 << 20;

/// The largest batch: so many rows, or so many bytes where the rows are large.
const MANY: usize = 10_000;
const MUCH: usize = 16 << 20;
/// Rows of the batch that does not fit the memory.
const LARGE: usize = 100;

/// The cases, with the author's own rows where there are some. They reach nobody: what is granted is
/// for the author's own cases.
pub(super) fn cases(suite: &Suite, publishes: bool) -> Vec<(Case, Check)> {
    let rows = own_rows(suite);
    let nulls = rows.iter().map(|row| row.iter().map(|(name, _)| (name.clone(), Value::Null)).collect()).collect();
    let one = rows.first().cloned().unwrap_or_default();
    let many = (MUCH / bytes(&one).max(1)).clamp(1, MANY);
    let base = Case { rows, ..Case::for_suite("a row is answered", suite) };
    let large = Row::from([("id".to_owned(), Value::Int64(1)), ("text".to_owned(), Value::Text("x".repeat(256 << 10)))]);
    let mut cases = vec![
        (base.clone(), Check::Answer),
        (base.with("every type of value is answered, at its limits", extremes()), Check::Answer),
        (base.with("a row of NULLs is answered", nulls), Check::Answer),
        (base.with("an empty batch is answered", Vec::new()), Check::Answer),
        (base.with("a huge batch is answered row by row", vec![one; many]), Check::Answer),
    ];
    let mut bare = base.named("without settings and secrets it answers");
    (bare.grants.settings, bare.grants.secrets) = (Vec::new(), Vec::new());
    cases.push((bare, Check::Answer));
    if publishes {
        let on = |name: &str, answer: Answer| Case { bus: Bus::All(answer), ..base.named(name) };
        cases.push((on("a bus that is away is no success", Answer::Unavailable), Check::Kept));
        cases.push((on("a bus that wants it later is no success", Answer::Retry), Check::Kept));
        cases.push((on("a bus that refuses it is no success", Answer::Reject), Check::NotSent));
        let silent = on("its deadline ends a call to a silent bus", Answer::Silent);
        let limits = Limits { timeout: Duration::from_millis(500), ..silent.limits };
        cases.push((Case { limits, ..silent }, Check::Deadline));
    }
    cases.push((base.with("its memory limit ends a call that needs more", vec![large; LARGE]), Check::Memory));
    cases
}

/// The rows of the first case that ought to be sent, as they are in the file; generic ones otherwise.
fn own_rows(suite: &Suite) -> Vec<Row> {
    let fails = |case: &Case| case.expect.as_ref().is_some_and(expect::Expect::is_of_failure);
    let plain = |case: &&Case| case.written > 0 && case.bus == Bus::default() && !fails(case);
    suite.cases.iter().find(plain).map_or_else(extremes, |case| case.rows[..case.written].to_vec())
}

/// About what a row takes in memory.
fn bytes(row: &Row) -> usize {
    row.iter().map(|(_, value)| value::json(value).to_string().len() + size_of::<Value>()).sum()
}

fn extremes() -> Vec<Row> {
    let text = |text: &str| text.to_owned();
    let all = [
        ("id", Value::Int64(1)),
        ("null", Value::Null),
        ("boolean", Value::Boolean(false)),
        ("int64", Value::Int64(9_007_199_254_740_993)),
        ("float64", Value::Float64(f64::MAX)),
        ("decimal", Value::Decimal(text("-0.000000000000000000000000000000000001"))),
        ("text", Value::Text(text("Zażółć gęślą jaźń, 你好, 🦀, \"\\\n\0\u{7f}"))),
        ("bytes", Value::Bytes(vec![0, 1, 127, 128, 255, 0])),
        ("json", Value::Json(text("{\"a\":[1,2.5,null,\"ü\"]}"))),
        ("uuid", Value::Uuid(text("0198c7a4-0000-7000-8000-000000000001"))),
        ("date", Value::Date(text("0001-01-01"))),
        ("time", Value::Time(text("24:00:00"))),
        ("datetime", Value::Datetime(text("9999-12-31T23:59:59.999999"))),
        ("timestamp", Value::Timestamp(text("9999-12-31T23:59:59.999999Z"))),
        ("other", Value::Other(text("{1,2}"))),
    ];
    let least = [
        ("id", Value::Int64(i64::MIN)),
        ("int64", Value::Int64(i64::MAX)),
        ("float64", Value::Float64(f64::NAN)),
        ("text", Value::Text(String::new())),
        ("bytes", Value::Bytes(Vec::new())),
        ("json", Value::Json(text("null"))),
    ];
    let row = |values: &[(&str, Value)]| values.iter().map(|(name, value)| (text(name), value.clone())).collect();
    vec![row(&all), row(&least)]
}

impl Case {
    fn for_suite(name: &str, suite: &Suite) -> Self {
        Self {
            name: name.to_owned(),
            rows: Vec::new(),
            written: 0,
            attempt: 1,
            attributes: Vec::new(),
            grants: suite.grants().on_paper(),
            limits: suite.limits,
            bus: Bus::default(),
            expect: None,
        }
    }

    fn named(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    fn with(&self, name: &str, rows: Vec<Row>) -> Self {
        Self { rows, ..self.named(name) }
    }
}

impl Check {
    /// `first`: what the rows were answered in the first case, where the bus took them.
    pub(super) fn fault(self, ran: &CaseResult, first: &[Outcome]) -> Option<String> {
        match self {
            Self::Answer => unanswered(ran),
            Self::NotSent | Self::Kept if ran.messages.is_empty() => unanswered(ran),
            Self::NotSent | Self::Kept => unanswered(ran).or_else(|| {
                // What it published is of one row at least: it skips what it publishes.
                let first = if first.iter().all(|outcome| *outcome == Outcome::Skip) { &[] } else { first };
                ran.verdict.as_ref().ok()?.iter().enumerate().find_map(|(n, outcome)| {
                    let lost = lost(outcome, first.get(n)).filter(|_| self == Self::Kept || *outcome == Outcome::Sent)?;
                    let or = if self == Self::Kept { ", or `retry`" } else { "" };
                    Some(format!("row {} {lost}: answer what `publish` answered for it{or}", n + 1))
                })
            }),
            Self::Deadline if ran.messages.is_empty() => unanswered(ran),
            Self::Deadline | Self::Memory => {
                let wanted = if self == Self::Deadline { "deadline" } else { "memory" };
                // It may pass over what it does not need.
                let failed = ran.failures().find(|failed| failed.kind != wanted)?;
                Some(format!("the call was ended by {}: {}", failed.kind, cut(&failed.reason)))
            }
        }
    }
}

/// How an answer loses a row that the bus has not taken. What was answered likewise while the bus
/// took all (`first`) is no matter of the bus.
fn lost(outcome: &Outcome, first: Option<&Outcome>) -> Option<&'static str> {
    match (outcome, first) {
        (Outcome::Sent, _) => Some("counts as sent, which the bus has not taken"),
        (Outcome::Skip, Some(Outcome::Skip)) | (Outcome::Reject { .. }, Some(Outcome::Reject { .. })) => None,
        (Outcome::Skip, _) => Some("is skipped, and so deleted, which the bus has not taken yet"),
        (Outcome::Reject { .. }, _) => Some("is rejected, and so a dead letter, which the bus may take another time"),
        (Outcome::Retry { .. } | Outcome::Held, _) => None,
    }
}

/// A call without an answer, or with one of the wrong length.
fn unanswered(ran: &CaseResult) -> Option<String> {
    ran.failed_call(None, &Redactor::default()).or_else(|| ran.wrong_length()).or_else(|| {
        let held = ran.verdict.as_ref().ok()?.iter().position(|outcome| *outcome == Outcome::Held)?;
        Some(format!("row {}: {}", held + 1, answer::Found::from_outcome(&Outcome::Held).json()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_fail_on_purpose_are_the_authors_own() {
        let text = r#"{"cases": [{"name": "a", "rows": [{"id": 1}], "expect": {"failure": "any"}}, {"name": "b", "rows": [{"id": 2}]}]}"#;
        assert_eq!(own_rows(&Suite::parse(text).unwrap()), [[("id".to_owned(), Value::Int64(2))]]);
    }

    /// What is said of an answer to a bus that did not take its messages.
    fn said(check: Check, outcomes: &[Outcome], first: &[Outcome]) -> Option<String> {
        let ran = CaseResult {
            name: "a".into(),
            rows: outcomes.len(),
            verdict: Ok(outcomes.to_vec()),
            messages: vec![signalbus_core::message::Message::default()],
            records: vec![],
            calls: vec![],
            fault: None,
            judged: true,
            batched: true,
        };
        check.fault(&ran, first)
    }

    #[test]
    fn rows_that_the_bus_may_take_later_are_not_given_up() {
        let (retry, reject) = (Outcome::retry("the bus is full"), Outcome::Reject { reason: "no".into() });
        let first = [Outcome::Skip, reject.clone(), Outcome::Sent];
        let kept = |third: &Outcome| said(Check::Kept, &[Outcome::Skip, reject.clone(), third.clone()], &first);
        assert_eq!(kept(&retry), None);
        for (third, words) in [
            (Outcome::Sent, "row 3 counts as sent, which the bus has not taken: answer what `publish` answered for it, or"),
            (Outcome::Skip, "row 3 is skipped, and so deleted, which the bus has not taken yet: answer what `publish`"),
            (reject.clone(), "row 3 is rejected, and so a dead letter, which the bus may take another time: answer what"),
        ] {
            let fault = kept(&third).unwrap();
            assert!(fault.starts_with(words), "{fault}");
        }
        assert!(said(Check::Kept, &[Outcome::Skip], &[]).is_some_and(|fault| fault.starts_with("row 1 is skipped")));
    }

    #[test]
    fn rows_that_the_bus_refuses_may_be_given_up() {
        let refused = |outcome| said(Check::NotSent, &[outcome], &[Outcome::Sent]);
        assert_eq!((refused(Outcome::Skip), refused(Outcome::Reject { reason: "no".into() })), (None, None));
        assert!(refused(Outcome::Sent).is_some_and(|fault| fault.starts_with("row 1 counts as sent")));
    }

    #[test]
    fn nobody_is_reached() {
        let text = r#"{"grants": {"http": ["https://shop.example"], "networks": ["10.0.0.0/8"]}, "secrets": {"a": "b"}}"#;
        let suite = Suite::parse(text).unwrap();
        let paper = suite.grants().on_paper();
        assert!(cases(&suite, true).iter().all(|(case, _)| case.grants.http == paper.http && case.grants.networks.is_empty()));
        assert!(!format!("{:?}", cases(&suite, true)).contains("shop.example"));
    }

    #[test]
    fn rows_that_a_case_repeats_are_handed_over_once() {
        let text = r#"{"cases": [{"name": "many", "rows": [{"id": 1}, {"id": 2}], "repeat": 10000}]}"#;
        let suite = Suite::parse(text).unwrap();
        assert_eq!(suite.cases[0].rows.len(), 20_000);
        let sizes =
            cases(&suite, true).into_iter().filter(|(case, _)| !case.name.contains("huge")).map(|(case, _)| case.rows.len());
        assert!(sizes.clone().max() <= Some(LARGE), "{:?}", sizes.collect::<Vec<_>>());
    }
}
