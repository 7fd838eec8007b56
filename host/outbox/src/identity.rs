//! Signal ids: `<signal type>:<key>~<tag>@<source>`, as in `OrderPlaced:7~q2k9f03mx4tb@k3f9q2`.
//!
//! Neither the key nor the content of a row makes an id: a key may come back (an upsert, a table without
//! AUTOINCREMENT, a restored backup), and so may the content with it. So the tag also covers the random seed of
//! the claim under which the row was first sent. The seed is recorded before anything is sent, inherited by
//! whoever takes the claim over, and kept with a hold: every repetition of one version of a row has the same
//! id, and no other version has it. Next: `claim`, which makes ids while it reads.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::database::Row;
use super::table::Table;
use super::trial::{Rule, is_broken};
use signalbus_core::signal::{Signal, Value};

/// What tells the ids of one claim from those of all others: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u128);

impl Seed {
    pub(super) fn random() -> Self {
        Self(uuid::Uuid::new_v4().as_u128())
    }

    /// Reads what [`to_text`](Self::to_text) wrote; anything else becomes a new seed.
    pub(super) fn from_text(text: &str) -> Self {
        u128::from_str_radix(text, 16).map_or_else(|_| Self::random(), Self)
    }

    pub(super) fn to_text(self) -> String {
        format!("{:032x}", self.0)
    }

    fn hasher(self) -> SipHasher13 {
        #[expect(clippy::cast_possible_truncation, reason = "the halves of 128 bits")]
        SipHasher13::new_with_keys((self.0 >> 64) as u64, self.0 as u64)
    }
}

/// Makes the ids of one signal type.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    signal: String,
    source: String,
    /// The column that is the id, as it is.
    column: Option<usize>,
    /// Whether the database numbers the versions of a row, so that its content need not be hashed.
    numbered: bool,
    /// See [`Table::computed`].
    computed: Vec<usize>,
}

impl Identity {
    pub(super) fn new(signal: &str, source: &str, table: &Table, numbered: bool) -> Self {
        let (column, computed) = (table.id, table.computed.clone());
        Self { signal: signal.to_owned(), source: source.to_owned(), column, numbered, computed }
    }

    /// A signal with the id that it has under this seed, after so many attempts.
    pub(super) fn signal(&self, row: Row, seed: Seed, attempts: u32) -> Signal {
        let Row { key, order_key, values, version, .. } = row;
        let own = self.column.and_then(|column| text(&values[column]));
        let id = own.unwrap_or_else(|| self.id(&key, self.tag(seed, version, &values)));
        Signal { id, key, order_key, attempt: attempts + 1, values }
    }

    fn tag(&self, seed: Seed, version: i64, values: &[Value]) -> u64 {
        let mut hasher = if is_broken(Rule::IdOfClaim) { Seed(0) } else { seed }.hasher();
        if self.numbered {
            hasher.write(&version.to_le_bytes());
        } else {
            let stored = values.iter().enumerate().filter(|(n, _)| !self.computed.contains(n));
            stored.for_each(|(_, value)| hash(&mut hasher, value));
        }
        hasher.finish()
    }

    fn id(&self, key: &str, mut tag: u64) -> String {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
        let mut id = String::with_capacity(self.signal.len() + key.len() + self.source.len() + 15);
        id.push_str(&self.signal);
        id.push(':');
        match key.contains(['~', '@']) {
            true => id.push_str(&key.replace('~', "%7E").replace('@', "%40")),
            false => id.push_str(key),
        }
        id.push('~');
        for _ in 0..12 {
            id.push(char::from(DIGITS[usize::try_from(tag % 32).unwrap_or_default()]));
            tag /= 32;
        }
        id.push('@');
        id.push_str(&self.source);
        id
    }
}

/// A new name for a database: six digits.
pub(super) fn source() -> String {
    let digits = Seed::random().to_text();
    digits[..6].to_owned()
}

/// Two values have the same hash only if they have the same text, or if both are NULL.
pub(super) fn hash(hasher: &mut SipHasher13, value: &Value) {
    let mut write = |bytes: &[u8]| {
        hasher.write(&(bytes.len() as u64 + 1).to_le_bytes());
        hasher.write(bytes);
    };
    match value {
        Value::Null => hasher.write(&0_u64.to_le_bytes()),
        Value::Bytes(bytes) => write(bytes),
        Value::Text(text)
        | Value::Decimal(text)
        | Value::Json(text)
        | Value::Uuid(text)
        | Value::Date(text)
        | Value::Time(text)
        | Value::Datetime(text)
        | Value::Timestamp(text)
        | Value::Other(text) => write(text.as_bytes()),
        Value::Boolean(_) | Value::Int64(_) | Value::Float64(_) => write(text(value).unwrap_or_default().as_bytes()),
    }
}

/// A value as text; `None` for NULL.
pub(super) fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Boolean(value) => value.to_string(),
        Value::Int64(value) => value.to_string(),
        Value::Float64(value) => value.to_string(),
        Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Value::Text(text)
        | Value::Decimal(text)
        | Value::Json(text)
        | Value::Uuid(text)
        | Value::Date(text)
        | Value::Time(text)
        | Value::Datetime(text)
        | Value::Timestamp(text)
        | Value::Other(text) => text.clone(),
    })
}

/// Whether two rows have the same content, to the bit, apart from what is computed.
pub(super) fn same(left: &[Value], right: &[Value], computed: &[usize]) -> bool {
    let equal = |(left, right): (&Value, &Value)| match (left, right) {
        (Value::Float64(left), Value::Float64(right)) => left.to_bits() == right.to_bits(),
        (left, right) => left == right,
    };
    let mut cells = left.iter().zip(right).enumerate();
    left.len() == right.len() && cells.all(|(n, cells)| computed.contains(&n) || equal(cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(identity: &Identity, key: &str, seed: u128, version: i64, values: &[Value]) -> String {
        let row = Row { key: key.into(), version, values: values.to_vec(), ..Row::default() };
        identity.signal(row, Seed(seed), 0).id
    }

    #[test]
    fn an_id_names_type_key_claim_and_version_and_database() {
        let identity = Identity::new("Order", "shop", &Table::default(), true);
        let first = id(&identity, "a~b@c", 7, 1, &[]);
        assert!(first.starts_with("Order:a%7Eb%40c~") && first.ends_with("@shop"), "{first}");
        assert_eq!(first.len(), "Order:a%7Eb%40c~".len() + 12 + "@shop".len());
        assert_eq!(first, id(&identity, "a~b@c", 7, 1, &[Value::Null]));
        for other in [id(&identity, "a~b@c", 8, 1, &[]), id(&identity, "a~b@c", 7, 2, &[])] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn without_numbers_the_content_tells_versions_apart() {
        let identity = Identity::new("Order", "shop", &Table { computed: vec![2], ..Table::default() }, false);
        let text = |text: &str| Value::Text(text.into());
        let rows =
            [vec![text("ab"), text("c")], vec![text("a"), text("bc")], vec![text(""), Value::Null], vec![Value::Null, text("")]];
        let ids: std::collections::HashSet<String> = rows.iter().map(|row| id(&identity, "1", 7, 0, row)).collect();
        assert_eq!(ids.len(), rows.len());
        assert_eq!(id(&identity, "1", 7, 0, &rows[0]), id(&identity, "1", 7, 9, &rows[0]));
        // What is computed may be another each time.
        let with_time = [text("ab"), text("c"), Value::Timestamp("2026-11-27".into())];
        assert_eq!(id(&identity, "1", 7, 0, &rows[0]), id(&identity, "1", 7, 0, &with_time));
    }

    #[test]
    fn a_column_may_be_the_id() {
        let identity = Identity::new("Order", "shop", &Table { id: Some(1), ..Table::default() }, true);
        let event = |value: Value| id(&identity, "1", 7, 1, &[Value::Int64(1), value]);
        assert_eq!(event(Value::Uuid("0b5e".into())), "0b5e");
        assert!(event(Value::Null).starts_with("Order:1~"));
    }

    #[test]
    fn content_is_compared_to_the_bit() {
        assert!(same(&[Value::Float64(f64::NAN)], &[Value::Float64(f64::NAN)], &[]));
        assert!(!same(&[Value::Float64(0.0)], &[Value::Float64(-0.0)], &[]));
        assert!(!same(&[Value::Int64(1)], &[Value::Text("1".into())], &[]));
        assert!(same(&[Value::Int64(1)], &[Value::Text("1".into())], &[0]));
    }

    #[test]
    fn seeds_survive_as_text() {
        let seed = Seed::random();
        assert_eq!(Seed::from_text(&seed.to_text()), seed);
        assert_ne!(Seed::from_text(""), Seed::from_text(""));
    }
}
