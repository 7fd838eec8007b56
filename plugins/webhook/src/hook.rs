//! Builds the request for a signal.

use std::time::{Duration, SystemTime};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::ser::{Serialize, SerializeMap, Serializer};
use signalbus_guest::http::Request;
use signalbus_guest::{Error, Result, Signal, Value, config};

use crate::settings::Settings;
use crate::sign::Keys;
use crate::template::{Template, text};

/// Characters that a header cannot contain, and the escape itself.
const HIDDEN: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
/// Maximum number of bytes read of a response: enough to quote an error, and to read a usual response
/// to its end, so that the connection can be reused.
const ANSWER: usize = 16 << 10;

/// The destination of signals, and their form.
pub struct Hook {
    settings: Settings,
    url: Template,
    keys: Option<Keys>,
}

impl Hook {
    /// Reads the settings, and checks them against the table.
    pub fn new(signal: &Signal) -> Result<Self> {
        let settings: Settings = config::parse()?;
        let url = Template::parse(&settings.url).map_err(Error::misconfigured)?;
        let keys = match settings.signed {
            true => Some(Keys::parse(&config::require_secret("signing_key")?).map_err(Error::misconfigured)?),
            false => None,
        };
        if settings.columns.is_some() && settings.body_column.is_some() {
            return Err(Error::misconfigured("settings \"columns\" and \"body_column\" exclude each other: leave one out"));
        }
        let named = settings.columns.iter().flatten().chain(&settings.body_column).map(String::as_str);
        if let Some(unknown) = named.chain(url.columns()).find(|column| signal.value(column).is_none()) {
            let known: Vec<&str> = signal.columns().iter().map(|column| column.name.as_str()).collect();
            let known = known.join(", ");
            return Err(Error::misconfigured(format!("the table has no column \"{unknown}\" (it has: {known})")));
        }
        Ok(Self { settings, url, keys })
    }

    /// Returns the time limit of a request: so much of a call's that what was answered can be reported.
    pub fn timeout(&self, signal: &Signal) -> Duration {
        let call = signal.call_timeout().unwrap_or(Duration::from_secs(30));
        self.settings.timeout.0.min(call.mul_f64(0.8))
    }

    /// Returns the maximum number of concurrent requests. Each needs some of the thousand host resources
    /// that an instance may hold.
    pub fn parallel(&self) -> usize {
        self.settings.parallel.clamp(1, 150)
    }

    /// Returns the request for a signal, or why there can be none.
    pub fn request(&self, signal: &Signal, timeout: Duration) -> std::result::Result<Request, String> {
        let (body, content_type) = self.body(signal)?;
        let content_type = self.settings.content_type.as_deref().unwrap_or(content_type);
        let mut request = Request::new(self.settings.method.to_ascii_uppercase(), self.url.fill_in(signal)?);
        if !self.settings.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
            request = request.header("content-type", content_type);
        }
        for (name, value) in &self.settings.headers {
            request = request.header(name, value);
        }
        let id = utf8_percent_encode(signal.id(), HIDDEN).to_string();
        let timestamp = SystemTime::UNIX_EPOCH.elapsed().map(|time| time.as_secs()).unwrap_or_default();
        request = request.header("webhook-id", &id).header("webhook-timestamp", timestamp.to_string());
        if let Some(keys) = &self.keys {
            request = request.header("webhook-signature", keys.sign(&id, timestamp, &body));
        }
        Ok(request.body(body).timeout(timeout).limit(ANSWER))
    }

    fn body(&self, signal: &Signal) -> std::result::Result<(Vec<u8>, &'static str), String> {
        const JSON: &str = "application/json";
        let Some(column) = &self.settings.body_column else {
            let body = match &self.settings.columns {
                Some(columns) => serde_json::to_vec(&Chosen { signal, columns }),
                None => serde_json::to_vec(signal),
            };
            return body.map(|body| (body, JSON)).map_err(|error| format!("the row cannot be encoded as JSON: {error}"));
        };
        match signal.value(column) {
            Some(Value::Bytes(bytes)) => Ok((bytes.clone(), "application/octet-stream")),
            Some(Value::Json(text)) => Ok((text.clone().into_bytes(), JSON)),
            Some(value) if !value.is_null() => Ok((text(value).unwrap_or_default().into_bytes(), "text/plain; charset=utf-8")),
            _ => Err(format!("column \"{column}\" is NULL, and cannot be the body")),
        }
    }
}

/// Serializes some columns of a row.
struct Chosen<'a> {
    signal: &'a Signal,
    columns: &'a [String],
}

impl Serialize for Chosen<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len()))?;
        for column in self.columns {
            map.serialize_entry(column, &self.signal.value(column))?;
        }
        map.end()
    }
}
