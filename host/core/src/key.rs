//! The text form of primary keys and order keys, as [`Signal`](crate::signal::Signal) holds it.
//!
//! Two different keys must never have the same text. Next: `Dialect` in `signalbus-outbox`, which reads
//! and compares keys in SQL.

use std::borrow::Cow;

/// Joins the parts of a key with `,`, percent-encoding `,`, `:` and `%` within the parts.
pub fn join_key(parts: &[&str]) -> String {
    let mut joined = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum());
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            joined.push(',');
        }
        if part.contains(['%', ',', ':']) {
            joined.push_str(&part.replace('%', "%25").replace(',', "%2C").replace(':', "%3A"));
        } else {
            joined.push_str(part);
        }
    }
    joined
}

/// Splits a joined key into its decoded parts.
pub fn split_key(key: &str) -> impl Iterator<Item = Cow<'_, str>> {
    key.split(',').map(|part| {
        if part.contains('%') {
            Cow::Owned(part.replace("%3A", ":").replace("%2C", ",").replace("%25", "%"))
        } else {
            Cow::Borrowed(part)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        for parts in [&["1"][..], &["a,b", "c:d", "%2C"], &["", ""], &["100%", "%25"]] {
            assert_eq!(split_key(&join_key(parts)).collect::<Vec<_>>(), parts);
        }
        assert_eq!(join_key(&["a,b", "7"]), "a%2Cb,7");
    }
}
