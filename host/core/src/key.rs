//! Keys as text: the parts of a primary key or an order key, joined.

use std::borrow::Cow;

/// Joins the parts of a key: `,` between them, percent-encoded where they hold `,`, `:` or `%`.
pub fn join_key(parts: &[&str]) -> String {
    let encoded: Vec<String> =
        parts.iter().map(|part| part.replace('%', "%25").replace(',', "%2C").replace(':', "%3A")).collect();
    encoded.join(",")
}

/// The parts of a key, decoded.
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
    fn keys_survive_joining() {
        for parts in [&["1"][..], &["a,b", "c:d", "%2C"], &["", ""], &["100%", "%25"]] {
            assert_eq!(split_key(&join_key(parts)).collect::<Vec<_>>(), parts);
        }
        assert_eq!(join_key(&["a,b", "7"]), "a%2Cb,7");
    }
}
