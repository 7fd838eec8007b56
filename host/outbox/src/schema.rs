//! The relay's own side tables, and what it expects of a user's table.

use super::database::number;
use super::table::{Description, OrderTerm, Table};
use super::{Error, Fault, Outbox, Source};

/// The version of the side tables that this release works with.
const VERSION: u32 = 1;

/// In which state the side tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    Current,
    Missing,
    /// Made by an older release.
    Old(u32),
    /// Made by a newer release.
    New(u32),
}

impl Outbox {
    /// In which state the side tables are.
    ///
    /// # Errors
    /// The database can't be asked.
    pub async fn schema(&self) -> Result<Schema, Error> {
        let name = vec!["signalbus_schema".to_owned()];
        if self.database.describe(&name).await?.is_none() {
            return Ok(Schema::Missing);
        }
        let rows = self.read(self.statement("SELECT max(version) FROM signalbus_schema", &[])).await?;
        let version: u32 = rows.first().map(|row| number(&row[0])).unwrap_or_default();
        Ok(match version {
            VERSION => Schema::Current,
            0 => Schema::Missing,
            old if old < VERSION => Schema::Old(old),
            new => Schema::New(new),
        })
    }

    /// Refuses to go on without current side tables.
    ///
    /// # Errors
    /// What is wrong with them, with the cure.
    pub async fn require_schema(&self) -> Result<(), Error> {
        match self.schema().await? {
            Schema::Current => Ok(()),
            Schema::Missing => Err(Error::Schema("the side tables `signalbus_*` are missing".into())),
            Schema::Old(version) => {
                Err(Error::Schema(format!("the side tables are of version {version}, this release needs {VERSION}")))
            }
            Schema::New(version) => Err(Error::Table(format!(
                "the side tables are of version {version}, newer than this release ({VERSION}); use a newer release"
            ))),
        }
    }

    /// The SQL that makes the side tables.
    pub fn migration(&self) -> &str {
        self.database.dialect().schema()
    }

    /// Makes the side tables, unless they are there.
    ///
    /// # Errors
    /// The database's, or side tables of a newer release.
    pub async fn migrate(&self) -> Result<bool, Error> {
        match self.schema().await? {
            Schema::Current => return Ok(false),
            Schema::New(_) => return self.require_schema().await.map(|()| false),
            Schema::Missing | Schema::Old(_) => {}
        }
        self.run_script(self.migration()).await?;
        Ok(true)
    }

    /// Runs statements, divided by `;`, in one transaction.
    pub async fn run_script(&self, script: &str) -> Result<(), Error> {
        let statements = script.split(';').map(str::trim).filter(|text| !text.is_empty());
        self.run(&statements.map(str::to_owned).collect::<Vec<_>>()).await
    }
}

/// An error about a side table that is not there says how to make it.
pub(super) fn missing(error: Error) -> Error {
    match error {
        Error::Refused { message, .. } if message.contains("signalbus_") => Error::Schema(message),
        error => error,
    }
}

/// Holds a signal type's configuration against the table that it names.
pub(super) fn resolve(source: &Source, name: Vec<String>, described: Description) -> (Option<Table>, Vec<Fault>) {
    let mut faults = Vec::new();
    let place = format!("signal type \"{}\"", source.signal);
    let column = |wanted: &str| described.columns.iter().position(|column| column.name == wanted);
    let mut table = Table { name, key: described.key.clone(), order_by: vec![], order_key: vec![], columns: vec![] };
    if table.key.is_empty() {
        faults.push(Fault::Fatal(format!(
            "{place}: table \"{}\" has no primary key, so its rows can't be told apart; add one",
            source.table
        )));
    }
    if let Some(engine) = &described.unsafe_engine {
        faults.push(Fault::Fatal(format!(
            "{place}: table \"{}\" is of the engine {engine}, which knows no transactions: a signal could be there without the \
             change it tells of; run `ALTER TABLE {} ENGINE=InnoDB`",
            source.table, source.table
        )));
    }
    let mut unknown = |setting: &str, wanted: &str| {
        let known = described.columns.iter().map(|column| column.name.as_str());
        let nearest = signalbus_core::suggest::nearest(wanted, known);
        faults.push(Fault::Fatal(format!(
            "{place}: `{setting}` names column \"{wanted}\", which table \"{}\" does not have{nearest}",
            source.table
        )));
    };
    for term in &source.order_by {
        let (wanted, descending) = order_term(term);
        match column(wanted).or_else(|| column(term)) {
            Some(column) => table.order_by.push(OrderTerm { column, descending }),
            None => unknown("order_by", wanted),
        }
    }
    for wanted in &source.order_key {
        match column(wanted) {
            Some(column) => table.order_key.push(column),
            None => unknown("order_key", wanted),
        }
    }
    let known = table.order_by.len() == source.order_by.len();
    if known && table.ordered() && !serves(&described, source) {
        faults.push(Fault::Doubtful(format!(
            "{place}: no index of table \"{}\" begins with `order_by` ({}), so every claim sorts the whole table; create one",
            source.table,
            source.order_by.join(", ")
        )));
    }
    table.columns = described.columns;
    let fit = !faults.iter().any(|fault| matches!(fault, Fault::Fatal(_)));
    (fit.then_some(table), faults)
}

fn order_term(term: &str) -> (&str, bool) {
    let lower = term.to_ascii_lowercase();
    if lower.ends_with(" desc") {
        return (term[..term.len() - 5].trim_end(), true);
    }
    let plain = if lower.ends_with(" asc") { &term[..term.len() - 4] } else { term };
    (plain.trim_end(), false)
}

/// An index serves where its first columns are those of `order_by`, in their order.
fn serves(described: &Description, source: &Source) -> bool {
    let wanted: Vec<&str> = source.order_by.iter().map(|term| order_term(term).0).collect();
    let key: Vec<String> = described.key.iter().map(|&n| described.columns[n].name.clone()).collect();
    let begins = |index: &Vec<String>| index.iter().zip(&wanted).filter(|(a, b)| a == *b).count() == wanted.len();
    begins(&key) || described.indexes.iter().any(begins)
}
