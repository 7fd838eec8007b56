//! The cases that every plugin must pass, whatever it sends.
//!
//! They reach nobody: grants lead nowhere here, and the bus only records.

use std::time::Duration;

use super::recorder::{Answer, Bus};
use super::redactor::{Redactor, cut};
use super::suite::{Case, Row, Suite};
use super::{CaseResult, answer, expect, value};
use signalbus_core::signal::{Outcome, Value};
use signalbus_plugin::Limits;

/// What a case of the contract checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Every row has an answer, and no call failed.
    Answer,
    /// If anything was published, no row counts as sent: the bus rejects every message.
    NotSent,
    /// If anything was published, no row is given up either: the bus may accept it later.
    Kept,
    /// Nothing of a run counts as sent behind a message that the bus did not accept.
    InOrder,
    /// A call that waits for the bus ends at its deadline.
    Deadline,
    /// A call that needs more memory than its limit ends.
    Memory,
}

/// Memory beyond the peak of the earlier cases, for the case that needs too much.
pub(super) const HEADROOM: usize = 1 << 20;

/// The size of the largest batch: a number of rows, or of bytes if the rows are large.
const MANY: usize = 10_000;
const MUCH: usize = 16 << 20;
/// How often the rows are repeated in the run of an ordered type.
const RUN: usize = 3;
/// The number of rows in the batch that does not fit in memory.
const LARGE: usize = 100;

/// The cases, with the author's own rows if there are any. The grants are for the author's own cases
/// only.
pub(super) fn cases(suite: &Suite, publishes: bool, runs: bool) -> Vec<(Case, Check)> {
    let rows = own_rows(suite);
    let nulls = rows.iter().map(|row| row.iter().map(|(name, _)| (name.clone(), Value::Null)).collect()).collect();
    let one = rows.first().cloned().unwrap_or_default();
    let many = (MUCH / bytes(&one).max(1)).clamp(1, MANY);
    let base = Case { rows, ..Case::for_suite("answers rows", suite) };
    let large = Row::from([("id".to_owned(), Value::Int64(1)), ("text".to_owned(), Value::Text("x".repeat(256 << 10)))]);
    let mut cases = vec![
        (base.clone(), Check::Answer),
        (base.with("answers every type of value, at its limits", extremes()), Check::Answer),
        (base.with("answers a row of NULLs", nulls), Check::Answer),
        (base.with("answers an empty batch", Vec::new()), Check::Answer),
        (base.with("answers every row of a huge batch", vec![one; many]), Check::Answer),
    ];
    let mut bare = base.named("answers without settings and secrets");
    (bare.grants.settings, bare.grants.secrets) = (Vec::new(), Vec::new());
    cases.push((bare, Check::Answer));
    if publishes {
        let on = |name: &str, answer: Answer| Case { bus: Bus::All(answer), ..base.named(name) };
        cases.push((on("keeps rows while the bus is unavailable", Answer::Unavailable), Check::Kept));
        cases.push((on("keeps rows that the bus wants later", Answer::Retry), Check::Kept));
        cases.push((on("reports no success for rows that the bus rejects", Answer::Reject), Check::NotSent));
        if runs {
            // One run; the bus wants the second message later, and would take those behind it.
            let run = Case {
                attributes: vec![("ordered".to_owned(), "true".to_owned())],
                ..on("keeps the order of a run", Answer::Sent)
            };
            let bus = Bus::Each(vec![Answer::Sent, Answer::Retry]);
            let rows = std::iter::repeat_n(run.rows.clone(), RUN).flatten().collect();
            cases.push((Case { bus, rows, ..run }, Check::InOrder));
        }
        let silent = on("a call ends at its deadline if the bus is silent", Answer::Silent);
        let limits = Limits { timeout: Duration::from_millis(500), ..silent.limits };
        cases.push((Case { limits, ..silent }, Check::Deadline));
    }
    cases.push((base.with("a call ends if it needs more memory than its limit", vec![large; LARGE]), Check::Memory));
    cases
}

/// The rows of the first case that is expected to succeed, without repetitions; else generic ones.
fn own_rows(suite: &Suite) -> Vec<Row> {
    let fails = |case: &Case| case.expect.as_ref().is_some_and(expect::Expect::expects_failure);
    let plain = |case: &&Case| case.written > 0 && case.bus == Bus::default() && !fails(case);
    suite.cases.iter().find(plain).map_or_else(extremes, |case| case.rows[..case.written].to_vec())
}

/// The approximate size of a row in memory.
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
    /// Explains what is wrong with a result. `first` are the outcomes of the same rows in the first case,
    /// where the bus accepted everything.
    pub(super) fn fault(self, result: &CaseResult, first: &[Outcome]) -> Option<String> {
        match self {
            Self::Answer => unanswered(result),
            Self::InOrder => result.failed_call(None, &Redactor::default()).or_else(|| result.wrong_answer()),
            Self::NotSent | Self::Kept if result.messages.is_empty() => unanswered(result),
            Self::NotSent | Self::Kept => unanswered(result).or_else(|| {
                // Something was published, so if all was skipped, published rows were skipped too.
                let first = if first.iter().all(|outcome| *outcome == Outcome::Skip) { &[] } else { first };
                result.verdict.as_ref().ok()?.iter().enumerate().find_map(|(n, outcome)| {
                    let lost = lost(outcome, first.get(n)).filter(|_| self == Self::Kept || *outcome == Outcome::Sent)?;
                    let or = if self == Self::Kept { ", or `retry`" } else { "" };
                    Some(format!("row {} {lost}: return what `publish` returned for it{or}", n + 1))
                })
            }),
            Self::Deadline if result.messages.is_empty() => unanswered(result),
            Self::Deadline | Self::Memory => {
                let expected = if self == Self::Deadline { "deadline" } else { "memory" };
                // A call may also succeed: perhaps it never waits, or needs little memory.
                let failed = result.failures().find(|failed| failed.kind != expected)?;
                Some(format!("the call failed with \"{}\", expected \"{expected}\": {}", failed.kind, cut(&failed.reason)))
            }
        }
    }
}

/// How an outcome loses a row that the bus has not accepted. If the outcome was the same when the bus
/// accepted everything (`first`), it has nothing to do with the bus.
fn lost(outcome: &Outcome, first: Option<&Outcome>) -> Option<&'static str> {
    match (outcome, first) {
        (Outcome::Sent, _) => Some("counts as sent, but the bus has not accepted it"),
        (Outcome::Skip, Some(Outcome::Skip)) | (Outcome::Reject { .. }, Some(Outcome::Reject { .. })) => None,
        (Outcome::Skip, _) => Some("is skipped, and so deleted, but the bus has not accepted it yet"),
        (Outcome::Reject { .. }, _) => Some("is rejected, and so becomes a dead letter, but the bus may accept it later"),
        (Outcome::Retry { .. } | Outcome::Held, _) => None,
    }
}

/// Explains a call that failed, an answer of the wrong length, or a row that was not answered.
fn unanswered(result: &CaseResult) -> Option<String> {
    result.failed_call(None, &Redactor::default()).or_else(|| result.wrong_answer()).or_else(|| {
        let held = result.verdict.as_ref().ok()?.iter().position(|outcome| *outcome == Outcome::Held)?;
        Some(format!("row {}: {}", held + 1, answer::Found::from_outcome(&Outcome::Held).json()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_case_that_expects_a_failure_are_not_reused() {
        let text = r#"{"cases": [{"name": "a", "rows": [{"id": 1}], "expect": {"failure": "any"}}, {"name": "b", "rows": [{"id": 2}]}]}"#;
        assert_eq!(own_rows(&Suite::parse(text).unwrap()), [[("id".to_owned(), Value::Int64(2))]]);
    }

    /// The fault of outcomes after the bus did not accept the messages.
    fn fault(check: Check, outcomes: &[Outcome], first: &[Outcome]) -> Option<String> {
        let result = CaseResult {
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
        check.fault(&result, first)
    }

    #[test]
    fn rows_that_the_bus_may_accept_later_must_be_kept() {
        let (retry, reject) = (Outcome::retry("the bus is full"), Outcome::Reject { reason: "no".into() });
        let first = [Outcome::Skip, reject.clone(), Outcome::Sent];
        let kept = |third: &Outcome| fault(Check::Kept, &[Outcome::Skip, reject.clone(), third.clone()], &first);
        assert_eq!(kept(&retry), None);
        for (third, words) in [
            (Outcome::Sent, "row 3 counts as sent, but the bus has not accepted it: return what `publish` returned for it, or"),
            (Outcome::Skip, "row 3 is skipped, and so deleted, but the bus has not accepted it yet: return what `publish`"),
            (reject.clone(), "row 3 is rejected, and so becomes a dead letter, but the bus may accept it later: return what"),
        ] {
            let text = kept(&third).unwrap();
            assert!(text.starts_with(words), "{text}");
        }
        assert!(fault(Check::Kept, &[Outcome::Skip], &[]).is_some_and(|fault| fault.starts_with("row 1 is skipped")));
    }

    #[test]
    fn rows_that_the_bus_rejects_may_be_given_up() {
        let rejected = |outcome| fault(Check::NotSent, &[outcome], &[Outcome::Sent]);
        assert_eq!((rejected(Outcome::Skip), rejected(Outcome::Reject { reason: "no".into() })), (None, None));
        assert!(rejected(Outcome::Sent).is_some_and(|fault| fault.starts_with("row 1 counts as sent")));
    }

    #[test]
    fn the_cases_reach_nobody() {
        let text = r#"{"grants": {"http": ["https://shop.example"], "networks": ["10.0.0.0/8"]}, "secrets": {"a": "b"}}"#;
        let suite = Suite::parse(text).unwrap();
        let paper = suite.grants().on_paper();
        assert!(
            cases(&suite, true, true).iter().all(|(case, _)| case.grants.http == paper.http && case.grants.networks.is_empty())
        );
        assert!(!format!("{:?}", cases(&suite, true, true)).contains("shop.example"));
    }

    #[test]
    fn repeated_rows_are_used_once() {
        let text = r#"{"cases": [{"name": "many", "rows": [{"id": 1}, {"id": 2}], "repeat": 10000}]}"#;
        let suite = Suite::parse(text).unwrap();
        assert_eq!(suite.cases[0].rows.len(), 20_000);
        let sizes = cases(&suite, true, true)
            .into_iter()
            .filter(|(case, _)| !case.name.contains("huge"))
            .map(|(case, _)| case.rows.len());
        assert!(sizes.clone().max() <= Some(LARGE), "{:?}", sizes.collect::<Vec<_>>());
    }
}
