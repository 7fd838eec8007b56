//! The relay's own side tables, and the requirements on a user's table.
//!
//! Never changes a user's table. Next: `table`, the description of a table that fits.

use super::database::{Dialect, number as read_number};
use super::sql::qualified;
use super::table::{Child, Description, OrderTerm, Table, TableColumn, name_parts};
use super::{Error, Fault, Outbox, Source};

/// The version of the side tables that this release requires.
const VERSION: u32 = 2;

/// The state of the side tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    Current,
    Missing,
    /// Created by an older release, with this version.
    Old(u32),
    /// Created by a newer release, with this version.
    New(u32),
}

impl Outbox {
    /// Returns the state of the side tables.
    ///
    /// # Errors
    /// The database's error.
    pub async fn schema(&self) -> Result<Schema, Error> {
        let name: Vec<String> = self.side_schema.iter().cloned().chain(["signalbus_schema".to_owned()]).collect();
        if self.database.describe(&name).await?.is_none() {
            return Ok(Schema::Missing);
        }
        let rows = self.read(self.statement("SELECT max(version) FROM signalbus_schema", &[])).await?;
        let version: u32 = rows.first().map(|row| read_number(&row[0])).unwrap_or_default();
        Ok(match version {
            VERSION => Schema::Current,
            0 => Schema::Missing,
            old if old < VERSION => Schema::Old(old),
            new => Schema::New(new),
        })
    }

    /// Checks that the side tables are current.
    ///
    /// # Errors
    /// They are not, with the cure; or the database's error.
    pub async fn require_schema(&self) -> Result<(), Error> {
        match self.schema().await? {
            Schema::Current => Ok(()),
            Schema::Missing => Err(Error::Schema("the side tables `signalbus_*` are missing".into())),
            Schema::Old(version) => {
                Err(Error::Schema(format!("the side tables have version {version}, this release needs {VERSION}")))
            }
            Schema::New(version) => Err(Error::Table(format!(
                "the side tables have version {version}, newer than this release ({VERSION}); use a newer release"
            ))),
        }
    }

    /// Returns the SQL that creates the side tables, and gives the database a name of its own.
    pub fn migration(&self) -> String {
        let source = self.source_name.clone().unwrap_or_else(super::identity::source);
        let script = self.database.dialect().schema().replace("{source}", &source);
        let Some(name) = &self.side_schema else { return script };
        let name = self.database.dialect().quote(name);
        format!("CREATE SCHEMA IF NOT EXISTS {name};\n{}", qualified(&script, &format!("{name}.")))
    }

    /// Whether the side tables are to be in a schema that does not exist yet.
    async fn lacks_schema(&self) -> Result<bool, Error> {
        let Some((name, text)) = self.side_schema.as_ref().zip(self.database.dialect().finds_schema()) else { return Ok(false) };
        Ok(self.read(self.statement(text, &[name.as_str().into()])).await?.is_empty())
    }

    /// The name of this database in the ids of signals: as it is configured, or else as it was set up.
    pub(super) async fn source(&self) -> Result<String, Error> {
        if let Some(source) = &self.source_name {
            return Ok(source.clone());
        }
        let rows = self.read(self.statement("SELECT max(source) FROM signalbus_schema", &[])).await.map_err(missing)?;
        Ok(rows.into_iter().flatten().next().flatten().unwrap_or_default())
    }

    /// Finds records of a signal type that were made before the side tables had a schema of their own.
    pub(super) async fn left_elsewhere(&self, source: &Source) -> Result<Option<Fault>, Error> {
        let Some(schema) = &self.side_schema else { return Ok(None) };
        let lane = "signalbus_lane".to_owned();
        let mut names = Vec::new();
        for name in [vec![lane.clone()], vec![schema.clone(), lane.clone()]] {
            let (text, args) = self.database.dialect().full_name(&name);
            names.push(self.read(self.statement(text, &args)).await?);
        }
        if names[0] == names[1] || self.database.describe(&[lane]).await?.is_none() {
            return Ok(None);
        }
        // (What is quoted is not looked for in the schema.)
        let lane = self.database.dialect().quote("signalbus_lane");
        let text = format!("SELECT 1 FROM {lane} WHERE signal_type = ?");
        let found = self.read(self.statement(&text, &[source.signal.as_str().into()])).await?;
        let text = format!(
            "signal type \"{}\" is also known to side tables outside of schema \"{schema}\", whose dead letters and deferrals \
             are not seen; move those tables to the schema, or drop them",
            source.signal
        );
        Ok((!found.is_empty()).then_some(Fault::Doubtful(text)))
    }

    /// Creates the indexes that the side tables have got since they were made. Returns whether there was any.
    async fn complete_indexes(&self) -> Result<bool, Error> {
        let script = self.migration();
        let mut lacking = Vec::new();
        for statement in statements(&script).filter(|statement| statement.starts_with("CREATE INDEX")) {
            let name = statement.split_whitespace().find(|word| word.starts_with("signalbus_")).unwrap_or_default();
            let text = self.database.dialect().finds_index();
            if self.read(self.statement(text, &[name.into()])).await?.is_empty() {
                lacking.push(statement);
            }
        }
        self.run(&lacking).await?;
        Ok(!lacking.is_empty())
    }

    /// Creates the side tables unless they are current. Returns whether it did. [`upgrade`](Self::upgrade) brings back
    /// what those of an earlier version have held.
    ///
    /// # Errors
    /// The database's error, side tables of a newer release, or a relay of an earlier one that is running.
    pub async fn migrate(&self) -> Result<bool, Error> {
        match self.schema().await? {
            Schema::Current => return self.complete_indexes().await,
            Schema::New(_) => return self.require_schema().await.map(|()| false),
            Schema::Old(_) => self.replace_version_1().await?,
            Schema::Missing => self.create_tables().await?,
        }
        Ok(true)
    }

    async fn create_tables(&self) -> Result<(), Error> {
        let script = self.migration();
        // To make a schema takes a right, even if it is there.
        let made = if self.lacks_schema().await? { 0 } else { usize::from(self.side_schema.is_some()) };
        self.run(&statements(&script).skip(made).collect::<Vec<_>>()).await
    }

    /// Runs statements, separated by `;`, in one transaction.
    ///
    /// # Errors
    /// The database's error; nothing was changed.
    pub async fn run_script(&self, script: &str) -> Result<(), Error> {
        self.run(&statements(script).collect::<Vec<_>>()).await
    }
}

fn statements(script: &str) -> impl Iterator<Item = String> {
    script.split(';').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Turns an error about a missing side table into one that names the cure.
pub(super) fn missing(error: Error) -> Error {
    match error {
        Error::Refused { message, .. } if message.contains("signalbus_") => Error::Schema(message),
        error => error,
    }
}

/// Checks a signal type's configuration against its table.
///
/// `view` are the columns of its view, if it has one.
pub(super) fn resolve(
    source: &Source,
    name: Vec<String>,
    mut described: Description,
    view: Option<Vec<TableColumn>>,
) -> (Option<Table>, Vec<Fault>) {
    let mut faults = Vec::new();
    let (rewrites, lockable, recurring) = (described.rewrites, described.lockable, !described.unique_keys);
    let computed = view.map(|view| show(source, &mut described, view, &mut faults)).unwrap_or_default();
    let view = source.view.as_deref().map(name_parts);
    let mut table = Table {
        name,
        view,
        computed,
        mark: source.on_sent.clone(),
        burst_bytes: source.burst_bytes,
        key: described.key.clone(),
        rewrites,
        lockable,
        recurring,
        ..Table::default()
    };
    find_unsafe(source, &described, &mut faults);
    name_columns(source, &described, &mut table, &mut faults);
    name_children(source, &mut table, &mut faults);
    find_doubtful(source, &described, &table, &mut faults);
    table.columns = described.columns;
    let fit = !faults.iter().any(|fault| matches!(fault, Fault::Fatal(_)));
    (fit.then_some(table), faults)
}

/// Finds what makes a table unsafe to send from.
fn find_unsafe(source: &Source, described: &Description, faults: &mut Vec<Fault>) {
    let place = format!("signal type \"{}\"", source.signal);
    if described.key.is_empty() && faults.is_empty() {
        faults.push(Fault::Fatal(format!(
            "{place}: table \"{}\" has no primary key, so its rows cannot be identified; add one",
            source.table
        )));
    }
    if let Some(engine) = &described.unsafe_engine {
        faults.push(Fault::Fatal(format!(
            "{place}: table \"{}\" uses the engine {engine}, which is not transactional: a signal could exist without the \
             change it announces; run `ALTER TABLE {} ENGINE=InnoDB`",
            source.table, source.table
        )));
    }
}

/// Finds what makes sending slow, or may keep rows.
fn find_doubtful(source: &Source, described: &Description, table: &Table, faults: &mut Vec<Fault>) {
    let place = format!("signal type \"{}\"", source.signal);
    let known = table.order_by.len() == source.order_by.len();
    // (The plan of a view tells more.)
    if known && table.ordered() && table.view.is_none() && !serves(described, source) {
        faults.push(Fault::Doubtful(format!(
            "{place}: no index of table \"{}\" begins with `order_by` ({}), so every claim sorts the whole table; create one",
            source.table,
            source.order_by.join(", ")
        )));
    }
    if !described.obstacles.is_empty() {
        faults.push(Fault::Doubtful(format!(
            "{place}: table \"{}\" has what may keep a row from being deleted: {}; such a row is sent once, and its deletion tried again",
            source.table,
            described.obstacles.join(", ")
        )));
    }
    if !described.unenforced.is_empty() {
        faults.push(Fault::Doubtful(format!(
            "{place}: foreign keys to table \"{}\" ({}) are not enforced when its rows are deleted, as is SQLite's default; add \
             `foreign_keys=on` (or `off`) to the options of `database.url`, as your application has it",
            source.table,
            described.unenforced.join(", ")
        )));
    }
}

/// Decides how the versions of a row are told apart. Returns what is wrong with the column that is to tell them.
pub(super) fn number(source: &Source, table: &mut Table, dialect: &dyn Dialect) -> Option<Fault> {
    table.numbered = dialect.numbers_versions();
    let column = table.version.take().filter(|_| dialect.version().is_none())?;
    if dialect.version_in(&table.columns[column], "").is_none() {
        return Some(Fault::Fatal(format!(
            "signal type \"{}\": `version` names column \"{}\", which is {}; it must be DATETIME(6) NOT NULL or TIMESTAMP(6) NOT \
             NULL, since a coarser one misses changes",
            source.signal, table.columns[column].name, table.columns[column].db_type
        )));
    }
    // Only a plain deletion can compare it.
    if table.view.is_none() && table.children.is_empty() && table.mark.is_empty() {
        (table.version, table.numbered) = (Some(column), true);
    }
    None
}

/// Puts a view's columns in the place of its table's, which know more of the key. Returns those that are not the
/// table's own.
fn show(source: &Source, described: &mut Description, view: Vec<TableColumn>, faults: &mut Vec<Fault>) -> Vec<usize> {
    let own = std::mem::replace(&mut described.columns, view);
    let mut key = Vec::new();
    for &n in &described.key {
        match described.columns.iter().position(|shown| shown.name == own[n].name) {
            Some(position) => {
                let shown = std::mem::replace(&mut described.columns[position], own[n].clone());
                if !shown.sql_type.eq_ignore_ascii_case(&own[n].sql_type) && !shown.sql_type.is_empty() {
                    faults.push(Fault::Fatal(format!(
                        "signal type \"{}\": view \"{}\" shows \"{}\" as {}, and in table \"{}\" it is {}; show it as it is",
                        source.signal,
                        source.view.as_deref().unwrap_or_default(),
                        shown.name,
                        shown.sql_type,
                        source.table,
                        own[n].sql_type
                    )));
                }
                key.push(position);
            }
            None => faults.push(Fault::Fatal(format!(
                "signal type \"{}\": view \"{}\" does not show \"{}\", which is part of the primary key of table \"{}\"; add it",
                source.signal,
                source.view.as_deref().unwrap_or_default(),
                own[n].name,
                source.table
            ))),
        }
    }
    described.key = key;
    let is_own = |column: &TableColumn| own.iter().any(|own| own.name == column.name);
    (0..described.columns.len()).filter(|&n| !is_own(&described.columns[n])).collect()
}

/// Finds the tables of which rows go with their signal.
fn name_children(source: &Source, table: &mut Table, faults: &mut Vec<Fault>) {
    let place = format!("signal type \"{}\"", source.signal);
    for wanted in &source.also_delete {
        let mut parts = name_parts(wanted);
        match parts.pop().filter(|_| !parts.is_empty()) {
            Some(_) if parts == table.name => faults.push(Fault::Fatal(format!(
                "{place}: `also_delete` names the signals' own table \"{}\"; it is for tables of child rows",
                source.table
            ))),
            Some(column) => table.children.push(Child { name: parts, column }),
            None => faults.push(Fault::Fatal(format!("{place}: `also_delete` holds \"{wanted}\"; write \"TABLE.COLUMN\""))),
        }
    }
    if !table.children.is_empty() && table.key.len() > 1 {
        faults.push(Fault::Fatal(format!(
            "{place}: `also_delete` needs a primary key of one column, and table \"{}\" has {}; use ON DELETE CASCADE",
            source.table,
            table.key.len()
        )));
    }
}

/// Says what is wrong with a table of which rows are to go with their signal.
pub(super) fn missing_child(source: &Source, child: &Child, described: Option<&Description>) -> Option<Fault> {
    let (signal, name, column) = (&source.signal, child.name.join("."), &child.column);
    let Some(described) = described else {
        return Some(Fault::Fatal(format!(
            "signal type \"{signal}\": `also_delete` names table \"{name}\", which does not exist"
        )));
    };
    let names = || described.columns.iter().map(|column| column.name.as_str());
    let nearest = signalbus_core::suggest::nearest(column, names());
    let text = format!(
        "signal type \"{signal}\": `also_delete` names column \"{column}\", which table \"{name}\" does not have{nearest}"
    );
    (!names().any(|name| name == column)).then_some(Fault::Fatal(text))
}

/// Finds the columns that a configuration names.
fn name_columns(source: &Source, described: &Description, table: &mut Table, faults: &mut Vec<Fault>) {
    let place = format!("signal type \"{}\"", source.signal);
    let column = |wanted: &str| described.columns.iter().position(|column| column.name == wanted);
    let owner = match &source.view {
        Some(view) => format!("view \"{view}\""),
        None => format!("table \"{}\"", source.table),
    };
    let mut unknown = |setting: &str, wanted: &str| {
        let known = described.columns.iter().map(|column| column.name.as_str());
        let nearest = signalbus_core::suggest::nearest(wanted, known);
        faults
            .push(Fault::Fatal(format!("{place}: `{setting}` names column \"{wanted}\", which {owner} does not have{nearest}")));
    };
    table.holds_dead = source.holds_dead && !source.order_by.is_empty();
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
    if let Some(wanted) = &source.version {
        table.version = column(wanted);
        if table.version.is_none() {
            unknown("version", wanted);
        }
    }
    if let Some(wanted) = &source.id {
        table.id = column(wanted);
        if table.id.is_none() {
            unknown("id", wanted);
        }
    }
}

fn order_term(term: &str) -> (&str, bool) {
    let lower = term.to_ascii_lowercase();
    if lower.ends_with(" desc") {
        return (term[..term.len() - 5].trim_end(), true);
    }
    let plain = if lower.ends_with(" asc") { &term[..term.len() - 4] } else { term };
    (plain.trim_end(), false)
}

/// Returns whether the first columns of an index are those of `order_by`, in this order.
fn serves(described: &Description, source: &Source) -> bool {
    let wanted: Vec<&str> = source.order_by.iter().map(|term| order_term(term).0).collect();
    let key: Vec<String> = described.key.iter().map(|&n| described.columns[n].name.clone()).collect();
    let begins = |index: &Vec<String>| index.iter().zip(&wanted).filter(|(a, b)| a == *b).count() == wanted.len();
    begins(&key) || described.indexes.iter().any(begins)
}
