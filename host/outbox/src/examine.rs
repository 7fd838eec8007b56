//! The faults of a signal type's table: what keeps its rows from being sent, or makes that slow.
//!
//! Changes nothing: whether rows may be removed is tried on none of them. Next: `schema`, which compares a description
//! with the configuration.

use super::database::{Purpose, number};
use super::removal::removal;
use super::table::{Table, TableColumn, name_parts};
use super::{Cause, Error, Fault, Outbox, Source, schema};

impl Outbox {
    /// Returns every problem with a signal type's table.
    ///
    /// # Errors
    /// The database's error.
    pub async fn faults(&self, source: &Source) -> Result<Vec<Fault>, Error> {
        let (table, mut faults) = self.examine(source).await?;
        if let Some(table) = table {
            faults.extend(self.keyless(source, &table).await?);
            faults.extend(self.left_elsewhere(source).await?);
            faults.extend(self.unfit_view(source, table).await?);
        }
        Ok(faults)
    }

    /// Tells what the ids of a signal type rest on.
    pub fn id_basis(&self, source: &Source) -> String {
        let numbered = self.database.dialect().numbers_versions();
        match (&source.id, numbered) {
            (Some(column), _) => format!("column \"{column}\", as it is; every version of a row needs its own"),
            (None, true) => "the claim, and the transaction that wrote the row".into(),
            (None, false) => {
                "the claim, and the content of the row; to replace a row by an equal one while it is being sent is no change"
                    .into()
            }
        }
    }

    /// Finds rows with NULL in their primary key, as SQLite allows: they cannot be identified, and are never sent.
    async fn keyless(&self, source: &Source, table: &Table) -> Result<Option<Fault>, Error> {
        let dialect = self.database.dialect();
        let missing = |column: &TableColumn| format!("{} IS NULL", dialect.quote(&column.name));
        let nullable = table.key_columns().filter(|column| column.nullable);
        let missing: Vec<String> = nullable.map(missing).collect();
        if missing.is_empty() {
            return Ok(None);
        }
        let name = dialect.table_name(&table.name);
        let text = format!("SELECT count(*) FROM {name} WHERE {}", missing.join(" OR "));
        let rows = self.read(self.statement(&text, &[])).await?;
        let count: u64 = rows.first().map(|row| number(&row[0])).unwrap_or_default();
        let text = format!(
            "signal type \"{}\": {count} rows of table \"{}\" have NULL in their primary key and are never sent; set their keys",
            source.signal, source.table
        );
        Ok((count > 0).then_some(Fault::Doubtful(text)))
    }

    pub(super) async fn examine(&self, source: &Source) -> Result<(Option<Table>, Vec<Fault>), Error> {
        let missing = |what: &str, name: &str| {
            let text = format!(
                "signal type \"{}\": {what} \"{name}\" does not exist; create it, or set `{what}` to another",
                source.signal
            );
            Ok((None, vec![Fault::Fatal(text)]))
        };
        let name = name_parts(&source.table);
        let Some(described) = self.database.describe(&name).await? else { return missing("table", &source.table) };
        let view = match &source.view {
            Some(view) => match self.database.describe(&name_parts(view)).await? {
                Some(described) => Some(described.columns),
                None => return missing("view", view),
            },
            None => None,
        };
        let (mut table, mut faults) = schema::resolve(source, name, described, view);
        faults.extend(table.as_mut().and_then(|table| schema::number(source, table, self.database.dialect())));
        for child in table.iter().flat_map(|table| &table.children) {
            let described = self.database.describe(&child.name).await?;
            faults.extend(schema::missing_child(source, child, described.as_ref()));
        }
        if let Some(table) = table.as_ref().filter(|_| faults.iter().all(|fault| matches!(fault, Fault::Doubtful(_)))) {
            faults.extend(self.try_removal(source, table).await?);
        }
        Ok((table, faults))
    }

    /// Proves the right to delete or mark rows.
    async fn try_removal(&self, source: &Source, table: &Table) -> Result<Vec<Fault>, Error> {
        let dialect = self.database.dialect();
        let children = table.children.iter().map(|child| {
            // The types of both columns must fit, too.
            let key = table.key_columns().next().map(|column| dialect.quote(&column.name)).unwrap_or_default();
            let of = format!(
                "{} IN (SELECT {key} FROM {} WHERE 1 = 0) AND ",
                dialect.quote(&child.column),
                dialect.table_name(&table.name)
            );
            let removal = format!("DELETE FROM {} WHERE {of}", dialect.table_name(&child.name));
            (child.name.join("."), removal, "DELETE")
        });
        let right = if table.mark.is_empty() { "DELETE" } else { "UPDATE" };
        let removals = children.chain([(source.table.clone(), removal(dialect, table), right)]);
        let mut faults = Vec::new();
        for (name, removal, right) in removals.filter(|_| dialect.has_rights() || source.is_complex()) {
            let mut session = self.database.session(None);
            session.begin(Purpose::Write).await?;
            match session.execute(self.statement(&format!("{removal}1 = 0"), &[])).await {
                // A lock tells nothing about rights.
                Err(Error::Refused { message, cause }) if cause != Cause::Locked => faults.push(Fault::Fatal(format!(
                    "signal type \"{}\": rows of table \"{name}\" cannot be removed: {message}; grant {right} on it, or correct \
                     the configuration",
                    source.signal
                ))),
                Err(error) if error.is_unreachable() => return Err(error),
                _ => session.rollback().await?,
            }
        }
        Ok(faults)
    }
}
