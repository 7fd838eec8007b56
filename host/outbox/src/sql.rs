//! A statement under construction. Keeps text and arguments apart: a value must never become text.
//!
//! Next: `database`, whose dialects write into it; `connection`, which binds the arguments.

/// An argument of a statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Arg {
    Null,
    Int(i64),
    Unsigned(u64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// One array argument (PostgreSQL only).
    Texts(Vec<String>),
    /// One array argument (PostgreSQL only).
    Ints(Vec<i64>),
}

impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Option<&str>> for Arg {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Self::Null, Self::from)
    }
}

impl From<i64> for Arg {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for Arg {
    fn from(number: u32) -> Self {
        Self::Int(i64::from(number))
    }
}

/// How a database writes the place of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placeholder {
    Question,
    Numbered,
}

/// A statement under construction.
#[derive(Clone, Debug)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) args: Vec<Arg>,
    placeholder: Placeholder,
}

impl Sql {
    pub(crate) fn new(placeholder: Placeholder, text: &str) -> Self {
        Self { text: text.to_owned(), args: Vec::new(), placeholder }
    }

    /// Appends text that this program wrote: never a value.
    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends the place of an argument, and keeps the argument.
    pub(crate) fn arg(&mut self, arg: impl Into<Arg>) -> &mut Self {
        self.args.push(arg.into());
        match self.placeholder {
            Placeholder::Question => self.text.push('?'),
            Placeholder::Numbered => {
                self.text.push('$');
                self.text.push_str(&self.args.len().to_string());
            }
        }
        self
    }

    /// The same statement, with the side tables' names behind `schema`, which is quoted and ends with a dot.
    pub(crate) fn with_sides_in(mut self, schema: &str) -> Self {
        self.text = qualified(&self.text, schema);
        self
    }

    /// Appends another statement's text and arguments. This one must not have any yet.
    pub(crate) fn append(&mut self, other: Self) -> &mut Self {
        debug_assert!(self.args.is_empty(), "places of arguments are numbered");
        self.text.push_str(&other.text);
        self.args = other.args;
        self
    }

    /// Appends `items`, each written by `write`, with `separator` between them.
    pub(crate) fn list<T>(
        &mut self,
        separator: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (n, item) in items.into_iter().enumerate() {
            if n > 0 {
                self.push(separator);
            }
            write(self, item);
        }
        self
    }
}

/// The side tables.
const SIDE_TABLES: [&str; 4] = ["signalbus_claim", "signalbus_hold", "signalbus_lane", "signalbus_schema"];

/// A statement's text with the side tables' names behind `schema`; what is quoted is none of them.
pub(crate) fn qualified(text: &str, schema: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || "_.\"'`".contains(c);
    let mut out = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(start) = rest.find("signalbus_") {
        let end = rest[start..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(rest.len(), |length| start + length);
        let (before, name) = (&rest[..start], &rest[start..end]);
        out.push_str(before);
        if SIDE_TABLES.contains(&name) && !before.ends_with(is_part) {
            out.push_str(schema);
        }
        out.push_str(name);
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_tables_can_be_in_a_schema_of_their_own() {
        let text =
            "DELETE FROM signalbus_hold WHERE id IN (SELECT 1 FROM signalbus_claim, \"signalbus_lane\") -- signalbus_holder";
        let wanted =
            "DELETE FROM s.signalbus_hold WHERE id IN (SELECT 1 FROM s.signalbus_claim, \"signalbus_lane\") -- signalbus_holder";
        assert_eq!(qualified(text, "s."), wanted);
        assert_eq!(
            qualified("CREATE INDEX signalbus_hold_due ON signalbus_hold (due)", "s."),
            "CREATE INDEX signalbus_hold_due ON s.signalbus_hold (due)"
        );
        assert_eq!(qualified("'signalbus_hold'", "s."), "'signalbus_hold'");
    }
}
