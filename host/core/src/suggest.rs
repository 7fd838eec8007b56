//! "Did you mean …?" suggestions for error messages. Next: the configuration, in `signalbus-relay`, and
//! the tables of users, in `signalbus-outbox`, which name what they do not know.

/// Returns `; did you mean "x"?` for the known name nearest to a misspelt one, or an empty string.
pub fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> String {
    let wanted_lower = wanted.to_lowercase();
    known
        .map(|name| (strsim::damerau_levenshtein(&wanted_lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().max(wanted.len()) / 4)
        .min()
        .map(|(_, name)| format!("; did you mean \"{name}\"?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_similar_names_are_suggested() {
        let known = || ["OrderPlaced", "PriceChanged"].into_iter();
        assert_eq!(nearest("OrderPlcaed", known()), "; did you mean \"OrderPlaced\"?");
        assert_eq!(nearest("orderplaced", known()), "; did you mean \"OrderPlaced\"?");
        assert_eq!(nearest("Invoice", known()), "");
    }
}
