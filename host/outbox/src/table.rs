//! Descriptions of users' tables: columns, primary key, order, and names with schemas.
//!
//! Runs no statement: the adapters' `describe` does. Next: `schema`, which checks a description; `text`,
//! which decodes by [`Kind`].

use std::borrow::Cow;

use signalbus_core::key::join_key;
use signalbus_core::signal::Value;

/// How a column is read and compared; each database has its own few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Int,
    /// Integers that may exceed the signed range.
    Unsigned,
    Float,
    Decimal,
    Text,
    /// Text whose length the database keeps with blanks.
    Padded,
    Bytes,
    Json,
    Jsonb,
    Uuid,
    Date,
    Time,
    Datetime,
    Timestamp,
    Bits,
    Geometry,
    /// An address, maybe with a mask.
    Network,
    /// Each value tells its own type (SQLite).
    Dynamic,
    Other,
}

/// One column of a user's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    /// What the plugin is told.
    pub(crate) db_type: String,
    /// What a cast to the column's type is written with.
    pub(crate) sql_type: String,
    pub(crate) kind: Kind,
    pub(crate) nullable: bool,
    /// Computed by the database: read, never written.
    pub(crate) generated: bool,
}

/// What the database says about a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) columns: Vec<TableColumn>,
    /// Positions of the primary key's columns, in the key's order; empty without a key.
    pub(crate) key: Vec<usize>,
    /// The columns of each usable index, in order.
    pub(crate) indexes: Vec<Vec<String>>,
    /// The storage engine, where it knows no transactions.
    pub(crate) unsafe_engine: Option<String>,
    /// The database, or chance, sees to it that no key comes back.
    pub(crate) unique_keys: bool,
    /// A deletion may make the database change other rows, on the relay's own connection.
    /// Or it may keep the row.
    pub(crate) rewrites: bool,
    /// The relay has the right to lock rows, where it needs one of its own.
    pub(crate) lockable: bool,
    /// What may refuse to let a row be deleted, in words.
    pub(crate) obstacles: Vec<String>,
    /// Tables with foreign keys to it that are not enforced on the relay's connection (SQLite).
    pub(crate) unenforced: Vec<String>,
}

/// One term of `order_by`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderTerm {
    pub(crate) column: usize,
    pub(crate) descending: bool,
}

/// A table that can serve as an outbox: resolved against a signal type's configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// Parts of the name, unquoted: schema (if given) and table.
    pub(crate) name: Vec<String>,
    /// The view that rows are read from, instead of the table.
    pub(crate) view: Option<Vec<String>>,
    pub(crate) columns: Vec<TableColumn>,
    /// Columns that a view has and the table does not: they are no part of a row's version.
    pub(crate) computed: Vec<usize>,
    pub(crate) key: Vec<usize>,
    /// Tables with a column that names the key: their rows are deleted with the signal.
    pub(crate) children: Vec<Child>,
    /// Columns, each with an SQL expression: what a row is set to instead of being deleted.
    pub(crate) mark: Vec<(String, String)>,
    pub(crate) order_by: Vec<OrderTerm>,
    pub(crate) order_key: Vec<usize>,
    /// A row's values tell its order key, without help from SQL.
    pub(crate) order_key_told: bool,
    /// The column that is the signal's id.
    pub(crate) id: Option<usize>,
    /// The column that changes with the row, where the database does not number the versions of rows by itself.
    pub(crate) version: Option<usize>,
    /// Two versions of a row have different numbers.
    pub(crate) numbered: bool,
    /// See [`Description::rewrites`].
    pub(crate) rewrites: bool,
    /// See [`Description::lockable`].
    pub(crate) lockable: bool,
    /// A dead letter keeps what follows it from being sent.
    pub(crate) holds_dead: bool,
    /// A key may come back, with the same content.
    pub(crate) recurring: bool,
    /// The most bytes in a batch of more than one row.
    pub(crate) burst_bytes: Option<usize>,
}

/// A table of which rows go with their signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) name: Vec<String>,
    pub(crate) column: String,
}

impl Table {
    /// A child, as a table with the parent's key.
    pub(crate) fn keyed(&self, child: &Child) -> Self {
        let column = |&n: &usize| TableColumn { name: child.column.clone(), nullable: true, ..self.columns[n].clone() };
        Self { name: child.name.clone(), columns: self.key.iter().take(1).map(column).collect(), key: vec![0], ..Self::default() }
    }

    pub(crate) fn key_columns(&self) -> impl Iterator<Item = &TableColumn> {
        self.key.iter().map(|&n| &self.columns[n])
    }

    /// The position of the key where it is one integer column: its text needs no help from SQL.
    pub(crate) fn integer_key(&self) -> Option<usize> {
        match self.key[..] {
            [only] if self.columns[only].kind == Kind::Int => Some(only),
            _ => None,
        }
    }

    /// The order key of a row with these values, if they tell it: the same text as SQL's.
    pub(crate) fn order_key_of(&self, values: &[Value]) -> String {
        let text = |&n: &usize| match &values[n] {
            Value::Int64(number) => Cow::Owned(number.to_string()),
            Value::Text(text) => Cow::Borrowed(text.as_str()),
            _ => Cow::Borrowed(""),
        };
        let parts: Vec<Cow<'_, str>> = self.order_key.iter().map(text).collect();
        join_key(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())
    }

    /// Whether the key is one integer, whatever its range.
    pub(crate) fn number_key(&self) -> bool {
        self.key.len() == 1 && self.key_columns().all(|column| matches!(column.kind, Kind::Int | Kind::Unsigned))
    }

    pub(crate) fn ordered(&self) -> bool {
        !self.order_by.is_empty()
    }
}

/// Splits `shop.order_placed` or `"odd.schema"."odd ""table"""` into its parts.
///
/// A part without double quotes is taken as it is written: spaces and capitals are kept.
pub(crate) fn name_parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        let part = parts.last_mut().expect("never empty");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if part.is_empty() => quoted = true,
            '.' if !quoted => parts.push(String::new()),
            c => part.push(c),
        }
    }
    parts
}

/// Rows of (index, column) as the columns of each index.
pub(crate) fn grouped(rows: Vec<Vec<Option<String>>>) -> Vec<Vec<String>> {
    let mut indexes: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        let (index, column) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        match indexes.last_mut() {
            Some((name, columns)) if *name == index => columns.push(column),
            _ => indexes.push((index, vec![column])),
        }
    }
    indexes.into_iter().map(|(_, columns)| columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_a_schema_and_quotes() {
        assert_eq!(name_parts("order_placed"), ["order_placed"]);
        assert_eq!(name_parts("shop.Order Placed"), ["shop", "Order Placed"]);
        assert_eq!(name_parts(r#""a.b"."c ""d""""#), ["a.b", r#"c "d""#]);
        assert_eq!(name_parts(r#"in"side"#), [r#"in"side"#]);
    }
}
