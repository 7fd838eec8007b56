//! The settings, and the messages built from them.

use std::collections::BTreeMap;

use serde::Deserialize;
use signalbus_guest::{Error, Message, Result, Signal, config};

use crate::body::Body;
use crate::template::Template;

/// The settings, as described in README.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub connection: String,
    pub destination: String,
    pub key: Option<String>,
    pub id: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, Scalar>,
    #[serde(default)]
    pub options: BTreeMap<String, Scalar>,
    pub content_type: Option<String>,
    pub columns: Option<Vec<String>>,
    pub body_column: Option<String>,
    pub cloudevents: Option<Mode>,
    pub cloudevents_prefix: Option<String>,
    pub source: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub subject: Option<String>,
    pub time: Option<String>,
}

/// A content mode of CloudEvents.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The body is the event.
    Structured,
    /// The headers contain the event's attributes, the body its data.
    Binary,
}

/// A text, or a scalar to be used as one.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    Text(String),
    Boolean(bool),
    Integer(i64),
    Float(f64),
}

/// Builds messages from signals.
pub struct Maker {
    connection: String,
    destination: Template,
    key: Option<Template>,
    id: Option<Template>,
    headers: Vec<(String, Template)>,
    options: Vec<(String, Template)>,
    content_type: String,
    body: Body,
    event: Option<Event>,
}

/// The attributes of a CloudEvent; `specversion` and `id` are added to them.
struct Event {
    mode: Mode,
    prefix: String,
    attributes: Vec<(&'static str, Template)>,
}

impl Settings {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// *Misconfigured*: a setting is missing, unknown, or contradicts another.
    pub fn read() -> Result<Self> {
        let settings: Self = config::parse()?;
        let fault = |text: &str| Err(Error::misconfigured(text));
        if settings.columns.is_some() && settings.body_column.is_some() {
            return fault("settings \"columns\" and \"body_column\" exclude each other: leave one out");
        }
        if settings.cloudevents.is_none() {
            let attributes = [&settings.source, &settings.kind, &settings.subject, &settings.time, &settings.cloudevents_prefix];
            if attributes.iter().any(|attribute| attribute.is_some()) {
                return fault("settings \"source\", \"type\", \"subject\" and \"time\" need \"cloudevents\" too");
            }
        } else if settings.source.is_none() {
            return fault("setting \"source\" is missing: CloudEvents need one, such as \"/shop/orders\"");
        }
        Ok(settings)
    }
}

impl Maker {
    /// # Errors
    /// *Misconfigured*: a column that the table does not have.
    pub fn new(settings: &Settings, like: &Signal) -> Result<Self> {
        let template = |setting: &str, text: &str| Template::new(setting, text, like);
        let maybe = |setting: &str, text: &Option<String>| text.as_deref().map(|text| template(setting, text)).transpose();
        let all = |setting: &str, map: &BTreeMap<String, Scalar>| {
            let one =
                |(name, value): (&String, &Scalar)| Ok((name.clone(), template(&format!("{setting}.{name}"), &value.text())?));
            map.iter().map(one).collect::<Result<Vec<_>>>()
        };
        let body = Body::new(settings.columns.as_deref(), settings.body_column.as_deref(), like)?;
        let content_type = settings.content_type.clone().unwrap_or_else(|| body.content_type().to_owned());
        Ok(Self {
            connection: settings.connection.clone(),
            destination: template("destination", &settings.destination)?,
            key: maybe("key", &settings.key)?,
            id: maybe("id", &settings.id)?,
            headers: all("headers", &settings.headers)?,
            options: all("options", &settings.options)?,
            event: settings.cloudevents.map(|mode| Event::new(mode, settings, like)).transpose()?,
            content_type,
            body,
        })
    }

    /// Builds the message for a signal.
    ///
    /// # Errors
    /// *Reject*: a column that the message needs is NULL or not text.
    pub fn message(&self, signal: &Signal) -> Result<Message> {
        let mut message = Message::new(self.connection.as_str(), self.destination.require(signal)?);
        message.id = Some(match &self.id {
            Some(id) => id.require(signal)?.into_owned(),
            None => signal.id().to_owned(),
        });
        if let Some(key) = &self.key {
            message.key = key.fill(signal)?.map(Into::into);
        }
        for (name, value) in &self.headers {
            // A header whose value is NULL is left out.
            message.headers.extend(value.fill(signal)?.map(|value| (name.clone(), value.into_owned())));
        }
        for (name, value) in &self.options {
            message.options.extend(value.fill(signal)?.map(|value| (name.clone(), value.into_owned())));
        }
        match &self.event {
            Some(event) => event.dress(message, signal, &self.body, &self.content_type),
            None => {
                message.body = self.body.encode(signal)?;
                if self.body.is_null(signal) {
                    message.options.push(("kafka.tombstone".to_owned(), "true".to_owned()));
                }
                Ok(message.content_type(self.content_type.as_str()))
            }
        }
    }
}

impl Event {
    fn new(mode: Mode, settings: &Settings, like: &Signal) -> Result<Self> {
        let wanted: [(&'static str, Option<&str>); 4] = [
            ("source", settings.source.as_deref()),
            ("type", Some(settings.kind.as_deref().unwrap_or("{signal.type}"))),
            ("subject", settings.subject.as_deref()),
            ("time", settings.time.as_deref()),
        ];
        let mut attributes = Vec::new();
        for (name, text) in wanted {
            if let Some(text) = text {
                attributes.push((name, Template::new(name, text, like)?));
            }
        }
        let prefix = settings.cloudevents_prefix.clone().unwrap_or_else(|| "ce-".to_owned());
        Ok(Self { mode, prefix, attributes })
    }

    fn dress(&self, mut message: Message, signal: &Signal, body: &Body, content_type: &str) -> Result<Message> {
        let id = message.id.clone().unwrap_or_default();
        let mut attributes = vec![("specversion", "1.0".to_owned()), ("id", id)];
        for (name, value) in &self.attributes {
            attributes.extend(value.fill(signal)?.map(|value| (*name, value.into_owned())));
        }
        match self.mode {
            Mode::Binary => {
                let headers = attributes.into_iter().map(|(name, value)| (format!("{}{name}", self.prefix), value));
                message.headers.extend(headers);
                message.body = body.encode(signal)?;
                Ok(message.content_type(content_type))
            }
            Mode::Structured => {
                message.body = body.event(signal, &attributes, content_type)?;
                Ok(message.content_type("application/cloudevents+json"))
            }
        }
    }
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Boolean(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
        }
    }
}
