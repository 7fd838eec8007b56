//! Tests a plugin on its author's machine: the contract, and rows from a file.
//!
//! There is no database, and the bus only records: nothing that a plugin publishes goes anywhere.
//! The cases of the contract are in `contract`, those of the author in `file`, and what may be
//! expected in `expect`.

mod answer;
mod contract;
mod expect;
mod file;
mod recorder;
mod redactor;
mod suite;
mod value;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use signalbus_core::message::Message;
use signalbus_core::signal::{Column, Outage, Outcome, Signal, SignalType, Value, Verdict};
use signalbus_core::suggest;
use signalbus_plugin::{
    Call, CallLog, Connections, Engine, Failed, Grants, Limits, LoadError, Plugin, PluginSpec, Record, Sender as _,
};

pub use redactor::cut;
pub use suite::{Case, Suite};
pub use value::{json, parse};

use contract::Check;
use recorder::{Bus, Recorder};
use redactor::Redactor;

/// A plugin under test, with the cases to run.
pub struct PluginTest {
    engine: Engine,
    path: PathBuf,
    suite: Suite,
}

/// The result of one case.
#[derive(Debug)]
pub struct CaseResult {
    pub name: String,
    /// The number of rows in the batch.
    pub rows: usize,
    /// The answer of the plugin, as the relay would receive it.
    pub verdict: Verdict,
    /// The messages that the plugin published.
    pub messages: Vec<Message>,
    pub records: Vec<Record>,
    pub calls: Vec<Call>,
    /// The first difference from the expectation.
    pub fault: Option<String>,
    /// Whether the case has an expectation.
    pub judged: bool,
    /// Whether a call gets several rows, so that a smaller batch makes smaller calls.
    pub batched: bool,
}

impl PluginTest {
    pub fn new(engine: Engine, path: &Path, suite: Suite) -> Self {
        Self { engine, path: path.to_owned(), suite }
    }

    /// Loads the plugin.
    ///
    /// # Errors
    /// If the file is not a plugin, or imports something that is not granted.
    pub async fn load(&self) -> Result<Plugin, LoadError> {
        Plugin::load(&self.engine, &self.spec(self.suite.limits, self.suite.grants().on_paper())).await
    }

    /// Runs the cases that every plugin must pass, and calls `report` with each result.
    ///
    /// # Errors
    /// If the file is not a plugin.
    pub async fn contract(&self, report: &mut impl FnMut(CaseResult)) -> Result<(), LoadError> {
        let mut peak_memory = 0;
        let mut first = None;
        let plugin = self.load().await?;
        let imported = |interface: &str| plugin.imports().iter().any(|import| import.starts_with(interface));
        let publishes = imported("signalbus:plugin/producer@") || imported("signalbus:plugin/ordered-producer@");
        let runs = plugin.takes_runs();
        // The plugin is kept: what a case loads then shares its compiled component.
        for (case, check) in contract::cases(&self.suite, publishes, runs) {
            // No call has succeeded, so it is unknown how much memory the plugin needs to start.
            if check == Check::Memory && peak_memory == 0 {
                continue;
            }
            let limits = match check {
                Check::Memory => Limits { memory: peak_memory + contract::HEADROOM, ..case.limits },
                _ => case.limits,
            };
            let mut result = self.run(&Case { limits, ..case }).await?;
            peak_memory = peak_memory.max(result.memory());
            let first = first.get_or_insert_with(|| result.verdict.clone().unwrap_or_default());
            (result.fault, result.judged) = (check.fault(&result, first), true);
            report(result);
        }
        Ok(())
    }

    /// Runs the cases of the file, and calls `report` with each result.
    ///
    /// # Errors
    /// If the file is not a plugin.
    pub async fn cases(&self, report: &mut impl FnMut(CaseResult)) -> Result<(), LoadError> {
        let _shared = self.load().await?;
        for case in &self.suite.cases {
            report(self.run(case).await?);
        }
        Ok(())
    }

    /// Runs a batch of existing signals, such as that of a dead letter.
    ///
    /// # Errors
    /// If the file is not a plugin.
    pub async fn replay(
        &self,
        signal_type: &SignalType,
        signals: &[Signal],
        grants: Grants,
        limits: Limits,
    ) -> Result<CaseResult, LoadError> {
        let recorder = Arc::new(Recorder::new(Bus::default()));
        let redactor = Redactor::for_grants(&grants);
        let mut result = self.send(signal_type, signals, &recorder, self.spec(limits, grants)).await?;
        redactor.redact_result(&mut result);
        Ok(result)
    }

    async fn run(&self, case: &Case) -> Result<CaseResult, LoadError> {
        let recorder = Arc::new(Recorder::new(case.bus.clone()));
        let (signal_type, signals) = case.signals(&self.suite.signal_type);
        let result = self.send(&signal_type, &signals, &recorder, self.spec(case.limits, case.grants.clone())).await?;
        let redactor = Redactor::for_grants(&case.grants);
        let fault = match &case.expect {
            Some(expect) => expect.fault(&result, &redactor),
            None => result.failed_call(None, &redactor).or_else(|| result.wrong_answer()),
        };
        let mut result = CaseResult { name: case.name.clone(), fault, judged: case.expect.is_some(), ..result };
        // Only after the comparison: an expectation contains the secret itself.
        redactor.redact_result(&mut result);
        Ok(result)
    }

    async fn send(
        &self,
        signal_type: &SignalType,
        signals: &[Signal],
        recorder: &Arc<Recorder>,
        spec: PluginSpec,
    ) -> Result<CaseResult, LoadError> {
        let call_log = Arc::new(CallLog::default());
        let connections = Connections::any(recorder.clone());
        let spec = PluginSpec { call_log: Some(call_log.clone()), connections, ..spec };
        let plugin = Plugin::load(&self.engine, &spec).await?;
        // What the plugin logs while it is loaded belongs to no case.
        call_log.take();
        let verdict = plugin.send(signal_type, signals, &CancellationToken::new()).await;
        let batched = plugin.takes_many(signal_type);
        drop(plugin);
        let (records, calls) = call_log.take();
        let (name, messages) = (String::new(), recorder.take());
        Ok(CaseResult { name, rows: signals.len(), verdict, messages, records, calls, fault: None, judged: false, batched })
    }

    fn spec(&self, limits: Limits, grants: Grants) -> PluginSpec {
        let signal_type = self.suite.signal_type.clone();
        // What the plugin publishes while it is loaded is not recorded.
        let connections = Connections::any(Arc::new(Recorder::new(Bus::default())));
        PluginSpec { signal_type, path: self.path.clone(), digest: None, limits, grants, connections, call_log: None }
    }
}

impl CaseResult {
    /// The total time of all calls.
    pub fn time(&self) -> Duration {
        self.calls.iter().map(|call| call.time).sum()
    }

    /// The peak memory of an instance, in bytes.
    pub fn memory(&self) -> usize {
        self.calls.iter().map(|call| call.memory).max().unwrap_or(0)
    }

    /// The failures of the calls that did not answer.
    fn failures(&self) -> impl Iterator<Item = &Failed> {
        self.calls.iter().filter_map(|call| call.failure.as_ref())
    }

    /// Explains a call that failed in another way than `expected`, even if its rows were sent one by
    /// one afterwards.
    fn failed_call(&self, expected: Option<&str>, redactor: &Redactor) -> Option<String> {
        let unexpected = |failed: &&Failed| expected.is_none_or(|expected| expected != expect::ANY && expected != failed.kind);
        let failed = self.failures().find(unexpected)?;
        let advice = match failed.kind {
            "memory" if self.batched => "; raise `memory`, or lower `burst_count`",
            "memory" => "; raise `memory`",
            "deadline" if self.batched => "; raise `timeout`, or lower `burst_count`",
            "deadline" => "; raise `timeout`",
            "other" => "",
            _ => "; answer `reject` for a row that the plugin cannot use, or `misconfigured` if a setting is missing",
        };
        let expectation = expected.map(|expected| format!(", expected failure \"{expected}\"")).unwrap_or_default();
        Some(format!("a call ended without an answer{expectation}: {}{advice}", redactor.text(&failed.reason)))
    }

    /// Explains an answer that is not one outcome for each row, or that breaks the order.
    fn wrong_answer(&self) -> Option<String> {
        let wrong_length = self.calls.iter().find_map(|call| call.wrong_length).map(|(answered, rows)| {
            format!("{answered} outcomes for {rows} rows; return a list with one for each row, in the same order")
        });
        wrong_length.or_else(|| {
            let id = self.calls.iter().find_map(|call| call.out_of_order.as_ref())?;
            Some(format!(
                "signal \"{id}\" was sent, or skipped, although one ahead of it in its run was not: the order is lost; behind a \
                 failure, return `held` for the rest of a run, and send nothing of it"
            ))
        })
    }
}

/// Writes outcomes as in a file of rows.
pub fn outcomes(outcomes: &[Outcome]) -> Vec<serde_json::Value> {
    outcomes.iter().map(|outcome| answer::Found::from_outcome(outcome).json()).collect()
}

/// Writes an outage as in a file of rows.
pub fn outage(outage: &Outage) -> serde_json::Value {
    answer::Found::from_outage(outage).json()
}

/// The error for an unknown word, which lists the known ones.
fn unknown<'a>(word: &str, what: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = suggest::nearest(word, known.clone());
    format!("unknown {what} \"{word}\"; expected one of {}{nearest}", known.collect::<Vec<_>>().join(", "))
}

/// The column for a value that comes from a file, with a plausible database type.
fn column(name: &str, value: &Value) -> Column {
    let db_type = match value {
        Value::Null | Value::Text(_) | Value::Other(_) => "text",
        Value::Boolean(_) => "boolean",
        Value::Int64(_) => "bigint",
        Value::Float64(_) => "double precision",
        Value::Decimal(_) => "numeric",
        Value::Bytes(_) => "bytea",
        Value::Json(_) => "jsonb",
        Value::Uuid(_) => "uuid",
        Value::Date(_) => "date",
        Value::Time(_) => "time",
        Value::Datetime(_) => "timestamp",
        Value::Timestamp(_) => "timestamptz",
    };
    Column { name: name.to_owned(), db_type: db_type.to_owned() }
}
