//! Trials: a plugin on its author's machine, with rows from a file, and a bus that only records.

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

/// A plugin that is tried out.
pub struct PluginTest {
    engine: Engine,
    path: PathBuf,
    suite: Suite,
}

/// What a case came to.
#[derive(Debug)]
pub struct CaseResult {
    pub name: String,
    /// The number of rows that were handed over.
    pub rows: usize,
    /// As the relay would take it.
    pub verdict: Verdict,
    /// What the bus was handed.
    pub messages: Vec<Message>,
    pub records: Vec<Record>,
    pub calls: Vec<Call>,
    /// The first difference from what was expected.
    pub fault: Option<String>,
    /// Whether anything was expected.
    pub judged: bool,
    /// Whether a smaller batch makes smaller calls.
    pub batched: bool,
}

impl PluginTest {
    pub fn new(engine: Engine, path: &Path, suite: Suite) -> Self {
        Self { engine, path: path.to_owned(), suite }
    }

    /// Loads the plugin, and says what it is.
    ///
    /// # Errors
    /// The file is no plugin, or imports what is not granted.
    pub async fn load(&self) -> Result<Plugin, LoadError> {
        Plugin::load(&self.engine, &self.spec(self.suite.limits, self.suite.grants().on_paper())).await
    }

    /// What every plugin has to stand, whatever it does: `told` is handed each case as it ends.
    ///
    /// # Errors
    /// The file is no plugin.
    pub async fn contract(&self, told: &mut impl FnMut(CaseResult)) -> Result<(), LoadError> {
        let mut held = 0;
        let mut first = None;
        let publishes = self.load().await?.imports().iter().any(|import| import.starts_with("signalbus:plugin/producer@"));
        for (case, check) in contract::cases(&self.suite, publishes) {
            // No call was answered, so that nothing says how much is too little to start with.
            if check == Check::Memory && held == 0 {
                continue;
            }
            let limits = match check {
                Check::Memory => Limits { memory: held + contract::HEADROOM, ..case.limits },
                _ => case.limits,
            };
            let mut ran = self.run(&Case { limits, ..case }).await?;
            held = held.max(ran.memory());
            let first = first.get_or_insert_with(|| ran.verdict.clone().unwrap_or_default());
            (ran.fault, ran.judged) = (check.fault(&ran, first), true);
            told(ran);
        }
        Ok(())
    }

    /// The cases of the file.
    ///
    /// # Errors
    /// The file is no plugin.
    pub async fn cases(&self, told: &mut impl FnMut(CaseResult)) -> Result<(), LoadError> {
        for case in &self.suite.cases {
            told(self.run(case).await?);
        }
        Ok(())
    }

    /// Hands over rows that have their values already, such as a dead letter's.
    ///
    /// # Errors
    /// The file is no plugin.
    pub async fn replay(
        &self,
        signal_type: &SignalType,
        signals: &[Signal],
        grants: Grants,
        limits: Limits,
    ) -> Result<CaseResult, LoadError> {
        let recorder = Arc::new(Recorder::new(Bus::default()));
        let redactor = Redactor::for_grants(&grants);
        let mut ran = self.send(signal_type, signals, &recorder, self.spec(limits, grants)).await?;
        redactor.hide(&mut ran);
        Ok(ran)
    }

    async fn run(&self, case: &Case) -> Result<CaseResult, LoadError> {
        let recorder = Arc::new(Recorder::new(case.bus.clone()));
        let (signal_type, signals) = case.signals(&self.suite.signal_type);
        let ran = self.send(&signal_type, &signals, &recorder, self.spec(case.limits, case.grants.clone())).await?;
        let redactor = Redactor::for_grants(&case.grants);
        let fault = match &case.expect {
            Some(expect) => expect.fault(&ran, &redactor),
            None => ran.failed_call(None, &redactor).or_else(|| ran.wrong_length()),
        };
        let mut ran = CaseResult { name: case.name.clone(), fault, judged: case.expect.is_some(), ..ran };
        // Only now: what is expected of a secret is its text.
        redactor.hide(&mut ran);
        Ok(ran)
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
        // What it says while it is tried for the first time belongs to no case.
        call_log.take();
        let verdict = plugin.send(signal_type, signals, &CancellationToken::new()).await;
        let batched = plugin.is_bulk() && !one_by_one(signal_type);
        drop(plugin);
        let (records, calls) = call_log.take();
        let (name, messages) = (String::new(), recorder.take());
        Ok(CaseResult { name, rows: signals.len(), verdict, messages, records, calls, fault: None, judged: false, batched })
    }

    fn spec(&self, limits: Limits, grants: Grants) -> PluginSpec {
        let signal_type = self.suite.signal_type.clone();
        // To load it is no reason to publish.
        let connections = Connections::any(Arc::new(Recorder::new(Bus::default())));
        PluginSpec { signal_type, path: self.path.clone(), digest: None, limits, grants, connections, call_log: None }
    }
}

impl CaseResult {
    /// Time of all calls together.
    pub fn time(&self) -> Duration {
        self.calls.iter().map(|call| call.time).sum()
    }

    /// The most bytes that an instance held.
    pub fn memory(&self) -> usize {
        self.calls.iter().map(|call| call.memory).max().unwrap_or(0)
    }

    /// Why calls had no answer.
    fn failures(&self) -> impl Iterator<Item = &Failed> {
        self.calls.iter().filter_map(|call| call.failure.as_ref())
    }

    /// A call that failed otherwise than `expected`. That its rows were sent one by one afterwards
    /// does not make up for it.
    fn failed_call(&self, expected: Option<&str>, redactor: &Redactor) -> Option<String> {
        let unexpected = |failed: &&Failed| expected.is_none_or(|expected| expected != expect::ANY && expected != failed.kind);
        let failed = self.failures().find(unexpected)?;
        let advice = match failed.kind {
            "memory" if self.batched => "; raise `memory`, or lower `burst_count`",
            "memory" => "; raise `memory`",
            "deadline" if self.batched => "; raise `timeout`, or lower `burst_count`",
            "deadline" => "; raise `timeout`",
            "other" => "",
            _ => "; answer `reject` for a row that you can't use, or `misconfigured` where a setting is missing",
        };
        let otherwise = expected.map(|expected| format!(", expected it to fail by {expected}")).unwrap_or_default();
        Some(format!("a call ended without an answer{otherwise}: {}{advice}", redactor.text(&failed.reason)))
    }

    /// An answer of the wrong length.
    fn wrong_length(&self) -> Option<String> {
        let (answered, rows) = self.calls.iter().find_map(|call| call.wrong_length)?;
        Some(format!("{answered} outcomes for {rows} rows: answer one for each, in their order"))
    }
}

/// Where order is promised, a call takes one row of each order key.
fn one_by_one(signal_type: &SignalType) -> bool {
    let has = |key: &str| signal_type.attributes.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
    has("ordered") == Some("true") && has("order_key").is_none()
}

/// Outcomes as files of rows have them.
pub fn outcomes(outcomes: &[Outcome]) -> Vec<serde_json::Value> {
    outcomes.iter().map(|outcome| answer::Found::from_outcome(outcome).json()).collect()
}

/// An outage as files of rows have it.
pub fn outage(outage: &Outage) -> serde_json::Value {
    answer::Found::from_outage(outage).json()
}

/// What is said of a word that is none of those that are known.
fn unknown<'a>(word: &str, what: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = suggest::nearest(word, known.clone());
    format!("\"{word}\" is no {what}, which are {}{nearest}", known.collect::<Vec<_>>().join(", "))
}

/// A column for a value that comes from no database.
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
