//! The ids that the messages of a call may have: those of its signals.
//!
//! A plugin must never publish under the id of another signal, which the bus would then drop as a duplicate.
//! `guest` collects them for each call, and `connection_grant` asks.

use std::collections::{BTreeSet, HashSet};

use super::wit::signalbus::plugin::types as wit;

/// The ids of the signals of a call.
#[derive(Debug, Default)]
pub(super) struct OwnIds {
    ids: HashSet<String>,
    /// The lengths of these ids.
    lengths: BTreeSet<usize>,
}

impl OwnIds {
    /// Takes the ids of signals, and those that the setting `id` makes of them, if there is one, as the plugin
    /// `publish` does.
    pub(super) fn of_call(signal_type: &wit::SignalType<'_>, signals: &[wit::Signal<'_>], setting: Option<&str>) -> Self {
        let made = setting
            .into_iter()
            .flat_map(|template| signals.iter().filter_map(move |signal| filled(template, signal_type, signal)));
        Self::of(signals.iter().map(|signal| signal.id.to_owned()).chain(made))
    }

    pub(super) fn of(ids: impl IntoIterator<Item = String>) -> Self {
        let ids: HashSet<String> = ids.into_iter().filter(|id| !id.is_empty()).collect();
        let lengths = ids.iter().map(String::len).collect();
        Self { ids, lengths }
    }

    /// Returns whether an id belongs to a signal: as it is, or with a part that tells the messages of one
    /// signal apart, as in `ID#2`, `ID/audit` or `audit/ID`.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.ids.contains(id) || self.lengths.iter().any(|&length| self.begins(id, length) || self.ends(id, length))
    }

    fn begins(&self, id: &str, length: usize) -> bool {
        id.split_at_checked(length).is_some_and(|(own, rest)| rest.starts_with(['#', '/']) && self.ids.contains(own))
    }

    fn ends(&self, id: &str, length: usize) -> bool {
        let split = id.len().checked_sub(length).and_then(|at| id.split_at_checked(at));
        split.is_some_and(|(rest, own)| rest.ends_with('/') && self.ids.contains(own))
    }
}

/// Fills in `{column}`, `{signal.id}` and `{signal.type}`; `{{` and `}}` stand for braces. `None` if the template
/// cannot be filled in.
fn filled(template: &str, signal_type: &wit::SignalType<'_>, signal: &wit::Signal<'_>) -> Option<String> {
    let mut id = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        id.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            id.push_str(brace);
            rest = after;
            continue;
        }
        let (name, after) = after.split_once('}').filter(|_| brace == "{")?;
        match name {
            "signal.id" => id.push_str(signal.id),
            "signal.type" => id.push_str(signal_type.name),
            _ => {
                let column = signal_type.columns.iter().position(|column| column.name == name)?;
                id.push_str(&text(signal.values.get(column)?)?);
            }
        }
        rest = after;
    }
    id.push_str(rest);
    Some(id)
}

/// Returns a value as text; `None` if it has none.
fn text(value: &wit::Value<'_>) -> Option<String> {
    Some(match value {
        wit::Value::Null => return None,
        wit::Value::Boolean(value) => value.to_string(),
        wit::Value::Int64(value) => value.to_string(),
        wit::Value::Float64(value) => value.to_string(),
        wit::Value::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.to_owned(),
        wit::Value::Decimal(text)
        | wit::Value::Text(text)
        | wit::Value::Json(text)
        | wit::Value::Uuid(text)
        | wit::Value::Date(text)
        | wit::Value::Time(text)
        | wit::Value::Datetime(text)
        | wit::Value::Timestamp(text)
        | wit::Value::Other(text) => (*text).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(ids: &[&str]) -> OwnIds {
        OwnIds::of(ids.iter().map(|id| (*id).to_owned()))
    }

    #[test]
    fn the_setting_makes_ids_of_columns() {
        let columns = [("event", "text"), ("number", "int")].map(|(name, db_type)| wit::Column { name, db_type });
        let signal_type = wit::SignalType { name: "T", columns: &columns, attributes: &[] };
        let values = [wit::Value::Text("e/1"), wit::Value::Int64(7)];
        let nothing = [wit::Value::Null, wit::Value::Int64(8)];
        let signals = [("T:1", &values), ("T:2", &nothing)].map(|(id, values)| wit::Signal { id, attempt: 1, values });
        let ids = |setting: &str| OwnIds::of_call(&signal_type, &signals, Some(setting));
        assert!(ids("{event}").contains("e/1") && ids("{event}").contains("T:2"));
        assert!(ids("{{{event}}}-{number}-{signal.type}").contains("{e/1}-7-T"));
        assert!(ids("{number}").contains("8") && !ids("{number}").contains("9"));
        for broken in ["{", "}", "{gone}", "{event"] {
            assert!(ids(broken).contains("T:1") && !ids(broken).contains(broken), "{broken}");
        }
    }

    #[test]
    fn an_id_may_tell_the_messages_of_a_signal_apart() {
        let own = own(&["T:a/b~1@s", "T:1~2@s", ""]);
        for id in ["T:a/b~1@s", "T:1~2@s", "T:1~2@s#2", "T:a/b~1@s/audit/é", "orders/T:1~2@s", "é/T:1~2@s"] {
            assert!(own.contains(id), "{id}");
        }
        for id in ["T:1~3@s", "T:1~2@s2", "xT:1~2@s", "#T:1~2@s", "T:1~2@", "", "#2", "/", "T:a", "é"] {
            assert!(!own.contains(id), "{id}");
        }
        assert!(!OwnIds::default().contains(""));
    }
}
