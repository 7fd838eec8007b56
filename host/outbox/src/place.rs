//! Places in the order of an ordered type: how far a scan has come.
//!
//! A scan starts at a floor: what lies before it was sent, or is held. It is a value of the first column of the order,
//! so it needs no index of its own, and the entries that deleted rows leave in an index are not walked again and again.
//! Next: `claim`, which moves the floor.

use signalbus_core::signal::Value;

/// A value that can be compared here as the database compares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Number(i64),
    /// A date, with or without a time, from the year on.
    Time(String),
}

impl Place {
    /// `texts`: whether texts are compared byte by byte.
    pub(super) fn of(value: &Value, texts: bool) -> Option<Self> {
        match value {
            Value::Int64(number) => Some(Self::Number(*number)),
            // As the database writes it, whose own comparison is one of times.
            Value::Date(text) | Value::Datetime(text) | Value::Timestamp(text) => {
                Self::time(&text.trim_end_matches('Z').replace('T', " "))
            }
            // As it is: the database compares its bytes.
            Value::Text(text) if texts => Self::time(text),
            _ => None,
        }
    }

    fn time(text: &str) -> Option<Self> {
        let digits = |range: std::ops::Range<usize>| text.get(range).is_some_and(|part| part.bytes().all(|c| c.is_ascii_digit()));
        let plain = text.bytes().all(|c| c.is_ascii_digit() || b"-: .TZ+".contains(&c));
        let dated = digits(0..4) && digits(5..7) && digits(8..10) && text.as_bytes().get(4) == Some(&b'-');
        (plain && dated).then(|| Self::Time(text.to_owned()))
    }

    /// As the database reads it.
    pub(super) fn to_text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Time(text) => text.clone(),
        }
    }

    /// Reads what [`to_text`](Self::to_text) wrote.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        text.parse().map(Self::Number).ok().or_else(|| Self::time(text))
    }

    /// The one that comes first.
    pub(super) fn first(self, other: Self, descending: bool) -> Self {
        if descending { self.max(other) } else { self.min(other) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_compared_as_texts() {
        let place = |text: &str| Place::of(&Value::Timestamp(text.into()), false).unwrap();
        let times = ["2026-11-27T09:30:00Z", "2026-11-27T09:30:00.5Z", "2026-11-27T09:30:00.75Z", "2026-11-27T09:30:01Z"];
        assert!(times.windows(2).all(|pair| place(pair[0]) < place(pair[1])));
        assert_eq!(place("2026-11-27T09:30:00.5Z").to_text(), "2026-11-27 09:30:00.5");
        let text = Value::Text("2026-11-27T09:30:00Z".into());
        assert_eq!(Place::of(&text, true).unwrap().to_text(), "2026-11-27T09:30:00Z");
        for text in ["12026-01-01", "infinity", "2026-01-01 BC", "2026-1-1", ""] {
            assert_eq!(Place::of(&Value::Timestamp(text.into()), false), None, "{text}");
        }
        assert_eq!(Place::of(&Value::Text("2026-11-27".into()), false), None);
        assert_eq!(Place::of(&Value::Null, true), None);
    }

    #[test]
    fn places_survive_as_text() {
        let times = ["2026-11-27 09:30:00.5", "2026-11-27T09:30:00Z"].map(|text| Place::Time(text.into()));
        for place in times.into_iter().chain([Place::Number(-7)]) {
            assert_eq!(Place::from_text(&place.to_text()), Some(place));
        }
        assert_eq!(Place::Number(3).first(Place::Number(5), true), Place::Number(5));
    }
}
