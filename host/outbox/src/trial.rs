//! What tests may do to the outbox: act between its transactions, and break one of its rules, to prove that their
//! checker would notice.
//!
//! A trial ends with the future that it runs. In a release all this is constant, and gone. Next: `tests/outbox/schedules`.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::batch::Batch;
use super::sql::Sql;
use super::table::Table;

/// A rule, by what holds where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A settle changes nothing unless its claim stands.
    Fence,
    /// A takeover blocks the fence of the claim's last holder.
    TakeoverFences,
    /// A holder reads no more from a claim that it has lost.
    LossStops,
    /// A deletion proves that each row is what was read.
    VersionDeleted,
    /// The state of the database is known before the rows are read.
    StateWithRows,
    /// A deletion names its rows, and no range of them.
    KeysNamed,
    /// A row that still stands after its deletion is on record as sent.
    ResistanceHeld,
    /// A hold belongs to one version of its row.
    HoldOfVersion,
    /// An id names the seed of its claim, since key and content may come back.
    IdOfClaim,
    /// Whoever takes a claim up inherits the seed of its ids.
    SeedInherited,
}

/// Something that is done before a transaction of the outbox begins.
pub type Interruption = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What is done to the outbox while a future runs.
#[derive(Clone, Default)]
pub struct Trial {
    pub broken: Option<Rule>,
    pub interruption: Option<Interruption>,
}

tokio::task_local! { static TRIAL: Trial; }

impl Trial {
    /// Runs a future. Whatever it calls here, without a task in between, is on trial.
    pub async fn run<F: Future>(self, work: F) -> F::Output {
        TRIAL.scope(self, work).await
    }

    fn current() -> Option<Self> {
        if cfg!(debug_assertions) { TRIAL.try_with(Self::clone).ok() } else { None }
    }
}

pub(crate) fn is_broken(rule: Rule) -> bool {
    Trial::current().is_some_and(|trial| trial.broken == Some(rule))
}

/// A place where others may come in between.
pub(crate) async fn interrupt() {
    if let Some(interruption) = Trial::current().and_then(|trial| trial.interruption) {
        interruption().await;
    }
}

/// Names the range from the first to the last of these signals, whose keys are numbers.
pub(crate) fn push_range(sql: &mut Sql, table: &Table, batch: &Batch, positions: &[usize]) {
    let keys = positions.iter().map(|&n| batch.signals[n].key.parse::<i64>().unwrap_or_default());
    let column = table.key_columns().next().map_or("", |column| &column.name);
    if let (Some(first), Some(last)) = (keys.clone().min(), keys.max()) {
        sql.push(&format!("{column} BETWEEN {first} AND {last}"));
    }
}
