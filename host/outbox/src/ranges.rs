//! Ranges of integer keys, which name the same rows as a list of them, and cost the database much less.
//!
//! Must never cover a key that is not named. Next: `database`, whose dialects write them.

use super::table::Table;

/// Ranges in which a table can have no keys but these, if they are integers and nearly consecutive. There may be the same
/// one several times, so that statements differ little.
pub(crate) fn ranges(table: &Table, keys: &[&str]) -> Option<Vec<(i64, i64)>> {
    // (A nullable column, which is none of a primary key, may hold numbers between two integers.)
    if !table.number_key() || table.key_columns().any(|column| column.nullable) {
        return None;
    }
    let mut numbers = keys.iter().map(|key| key.parse()).collect::<Result<Vec<i64>, _>>().ok()?;
    numbers.sort_unstable();
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if number.checked_sub(1) == Some(*last) => *last = number,
            _ => ranges.push((number, number)),
        }
        if ranges.len() > MOST_RANGES {
            return None;
        }
    }
    let last = *ranges.last()?;
    ranges.resize(ranges.len().next_power_of_two(), last);
    (ranges.len() == 1 || ranges.len() < keys.len() / 8).then_some(ranges)
}

const MOST_RANGES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Kind, TableColumn};

    #[test]
    fn integers_are_named_by_ranges() {
        let column = |kind, nullable| {
            let (name, db_type, sql_type) = ("id".to_owned(), "bigint".to_owned(), "bigint".to_owned());
            TableColumn { name, db_type, sql_type, kind, nullable, generated: false }
        };
        let table = |kind, nullable| Table { columns: vec![column(kind, nullable)], key: vec![0], ..Table::default() };
        let integer = table(Kind::Int, false);
        assert_eq!(ranges(&integer, &["9", "7", "8"]), Some(vec![(7, 9)]));
        assert_eq!(ranges(&integer, &["-1", "0"]), Some(vec![(-1, 0)]));
        assert_eq!(ranges(&integer, &["9223372036854775807"]), Some(vec![(i64::MAX, i64::MAX)]));
        for none in [&["7", "9"][..], &["7", "a"], &["9223372036854775808"], &[]] {
            assert_eq!(ranges(&integer, none), None, "{none:?}");
        }
        for other in [table(Kind::Int, true), table(Kind::Dynamic, false), table(Kind::Decimal, false)] {
            assert_eq!(ranges(&other, &["7", "8"]), None);
        }
        let texts: Vec<String> = (0..100).filter(|n| n % 40 > 0).map(|n| n.to_string()).collect();
        let keys: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert_eq!(ranges(&integer, &keys), Some(vec![(1, 39), (41, 79), (81, 99), (81, 99)]));
        let odd: Vec<&str> = keys.iter().step_by(2).copied().collect();
        assert_eq!(ranges(&integer, &odd), None);
    }
}
