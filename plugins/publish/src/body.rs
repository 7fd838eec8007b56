//! The body of a message. Wrong columns are found before the first message; `settings` builds the rest.

use serde::ser::{Serialize, SerializeMap, Serializer};
use signalbus_guest::{Error, Result, Signal, Value};

use crate::template::{column, text, unknown};

/// What the body of a message contains.
pub enum Body {
    /// A JSON object with all columns.
    Row,
    /// A JSON object with the columns at these positions.
    Columns(Vec<usize>),
    /// One column, unchanged: its position, and the media type that its value suggests.
    Raw(usize, &'static str),
}

impl Body {
    /// Selects the columns of the body, for signals like `like`.
    ///
    /// # Errors
    /// *Misconfigured*: the table does not have a column.
    pub fn new(columns: Option<&[String]>, body_column: Option<&str>, like: &Signal) -> Result<Self> {
        let find = |setting: &str, name: &str| {
            column(name, like).ok_or_else(|| Error::misconfigured(format!("setting \"{setting}\": {}", unknown(name, like))))
        };
        Ok(match (columns, body_column) {
            (Some(columns), _) => Self::Columns(columns.iter().map(|name| find("columns", name)).collect::<Result<_>>()?),
            (None, Some(name)) => {
                let position = find("body_column", name)?;
                let media = match like.cells().nth(position) {
                    Some((_, Value::Json(_))) => "application/json",
                    Some((_, Value::Bytes(_))) => "application/octet-stream",
                    _ => "text/plain; charset=utf-8",
                };
                Self::Raw(position, media)
            }
            (None, None) => Self::Row,
        })
    }

    pub fn content_type(&self) -> &str {
        match self {
            Self::Row | Self::Columns(_) => "application/json",
            Self::Raw(_, media) => media,
        }
    }

    /// Returns whether the body is a column that is NULL.
    pub fn is_null(&self, signal: &Signal) -> bool {
        matches!(self, Self::Raw(position, _) if matches!(signal.cells().nth(*position), Some((_, Value::Null))))
    }

    /// Returns the body of a signal's message.
    ///
    /// # Errors
    /// *Retry*, never expected: a value cannot be represented in JSON.
    pub fn encode(&self, signal: &Signal) -> Result<Vec<u8>> {
        match self {
            Self::Row => Ok(serde_json::to_vec(signal)?),
            Self::Columns(positions) => Ok(serde_json::to_vec(&Chosen { signal, positions })?),
            Self::Raw(position, _) => Ok(match signal.cells().nth(*position) {
                None => Vec::new(),
                Some((_, Value::Bytes(bytes))) => bytes.clone(),
                Some((_, value)) => text(value).unwrap_or_default().into_owned().into_bytes(),
            }),
        }
    }

    /// Returns a CloudEvent in JSON format, with the body as its data.
    ///
    /// # Errors
    /// *Reject*: the value of a JSON column is not JSON.
    pub fn event(&self, signal: &Signal, attributes: &[(&str, String)], content_type: &str) -> Result<Vec<u8>> {
        let data = match self {
            Self::Raw(position, _) => match signal.cells().nth(*position) {
                Some((_, Value::Json(json))) => Data::Json(json.clone()),
                Some((_, value @ Value::Bytes(_))) => Data::Binary(value),
                Some((_, value)) => Data::Text(value),
                None => Data::Text(&Value::Null),
            },
            _ => Data::Json(String::from_utf8_lossy(&self.encode(signal)?).into_owned()),
        };
        let event = serde_json::to_vec(&Event { attributes, content_type, data });
        event.map_err(|error| Error::reject(format!("the event's data is not JSON: {error}")))
    }
}

/// Serializes some of a signal's columns as an object.
struct Chosen<'a> {
    signal: &'a Signal,
    positions: &'a [usize],
}

impl Serialize for Chosen<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.positions.len()))?;
        for position in self.positions {
            if let Some((column, value)) = self.signal.cells().nth(*position) {
                map.serialize_entry(&column.name, value)?;
            }
        }
        map.end()
    }
}

struct Event<'a> {
    attributes: &'a [(&'a str, String)],
    content_type: &'a str,
    data: Data<'a>,
}

enum Data<'a> {
    Json(String),
    Text(&'a Value),
    /// Encoded in base64, as `data_base64`.
    Binary(&'a Value),
}

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::Error as _;
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.attributes {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("datacontenttype", self.content_type)?;
        match &self.data {
            Data::Json(json) => {
                let raw: &serde_json::value::RawValue = serde_json::from_str(json).map_err(S::Error::custom)?;
                map.serialize_entry("data", raw)?;
            }
            Data::Text(value) => map.serialize_entry("data", value)?,
            Data::Binary(value) => map.serialize_entry("data_base64", value)?,
        }
        map.end()
    }
}
