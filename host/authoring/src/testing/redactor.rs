//! Removes secrets from the results of a test, and shortens long texts.
//!
//! No result may be shown before it has passed a [`Redactor`].

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::CaseResult;
use signalbus_core::message::Message;
use signalbus_core::signal::{Outage, Outcome};
use signalbus_plugin::Grants;

/// The number of characters of a text that are shown.
const LONGEST: usize = 300;

/// Shortens a text that is too long to read.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Replaces the secrets of a plugin in texts. Redact before cutting: the beginning of a secret would
/// not be recognised.
#[derive(Clone, Debug, Default)]
pub(super) struct Redactor(Grants);

impl Redactor {
    pub(super) fn for_grants(grants: &Grants) -> Self {
        Self(Grants { secrets: grants.secrets.clone(), ..Grants::default() })
    }

    pub(super) fn text(&self, text: &str) -> String {
        cut(&self.0.redact(text))
    }

    /// Writes JSON as in a file of rows, redacted.
    pub(super) fn json(&self, json: impl Into<Json>) -> String {
        // Inside strings first, where a secret may be escaped, then in everything else.
        self.text(&self.document(json.into()).to_string())
    }

    pub(super) fn body(&self, body: &[u8]) -> String {
        self.text(&String::from_utf8_lossy(body))
    }

    /// Redacts every text of a result.
    pub(super) fn redact_result(&self, result: &mut CaseResult) {
        if self.0.secrets.is_empty() {
            return;
        }
        match &mut result.verdict {
            Ok(outcomes) => outcomes.iter_mut().for_each(|outcome| match outcome {
                Outcome::Retry { reason, .. } | Outcome::Reject { reason } => self.redact(reason),
                Outcome::Sent | Outcome::Skip | Outcome::Held => {}
            }),
            Err(Outage::Unavailable { reason, .. } | Outage::Misconfigured { reason }) => self.redact(reason),
        }
        result.messages.iter_mut().for_each(|message| self.message(message));
        for record in &mut result.records {
            self.redact(&mut record.message);
            self.pairs(&mut record.fields);
        }
        for failed in result.calls.iter_mut().filter_map(|call| call.failure.as_mut()) {
            self.redact(&mut failed.reason);
            self.redact(&mut failed.backtrace);
        }
        result.fault.iter_mut().for_each(|fault| self.redact(fault));
    }

    fn message(&self, message: &mut Message) {
        let Message { connection, destination, key, content_type, headers, body, id, options } = message;
        let texts = [connection, destination].into_iter().chain([key, content_type, id].into_iter().flatten());
        texts.for_each(|text| self.redact(text));
        self.pairs(headers);
        self.pairs(options);
        if let Ok(json) = serde_json::from_slice::<Json>(body) {
            let document = self.document(json.clone());
            if document != json {
                *body = document.to_string().into_bytes();
            }
        }
        let chunks = body.utf8_chunks().flat_map(|chunk| [self.0.redact(chunk.valid()).as_bytes(), chunk.invalid()].concat());
        *body = chunks.collect();
    }

    fn pairs(&self, pairs: &mut [(String, String)]) {
        for (key, value) in pairs {
            self.redact(key);
            self.redact(value);
        }
    }

    fn redact(&self, text: &mut String) {
        *text = self.0.redact(text).into_owned();
    }

    fn document(&self, json: Json) -> Json {
        match json {
            Json::String(text) => self.0.redact(&text).into(),
            Json::Array(list) => list.into_iter().map(|json| self.document(json)).collect(),
            Json::Object(map) => {
                map.into_iter().map(|(key, json)| (self.0.redact(&key).into_owned(), self.document(json))).collect()
            }
            other => other,
        }
    }
}

/// Turns pairs into a JSON object.
pub(super) fn object(pairs: &BTreeMap<String, String>) -> Json {
    pairs.iter().map(|(key, value)| (key.clone(), Json::from(value.as_str()))).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use signalbus_plugin::{Call, Failed, Record};

    fn redactor(secret: &str) -> Redactor {
        Redactor::for_grants(&Grants { secrets: vec![("token".into(), secret.into())], ..Grants::default() })
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(LONGEST);
        assert_eq!(cut(&text), text);
        assert_eq!(cut(&format!("{text}é")), format!("{text}…"));
    }

    #[test]
    fn a_secret_is_redacted_before_the_text_is_cut() {
        let text = format!("{}hunter22", "x".repeat(LONGEST - 4));
        assert_eq!(redactor("hunter22").text(&text), format!("{}[sec…", "x".repeat(LONGEST - 4)));
    }

    #[test]
    fn an_escaped_secret_is_redacted() {
        let secret = "se\"c\\rét";
        assert_eq!(redactor(secret).json(serde_json::json!({ "a": [secret] })), r#"{"a":["[secret]"]}"#);
        assert_eq!(redactor("12345").json(12345), "[secret]");
    }

    #[test]
    fn every_text_of_a_result_is_redacted() {
        let secret = "se\"c\\rét";
        let text = || format!("it is {secret}");
        let message = |body: Vec<u8>| Message {
            connection: text(),
            destination: text(),
            key: Some(text()),
            content_type: Some(text()),
            headers: vec![("token".into(), text())],
            body,
            id: Some(text()),
            options: vec![(text(), text())],
        };
        let failed = Failed { kind: "trap", reason: text(), backtrace: text() };
        let json = r#"{"a": "se\"c\\r\u00e9t", "b": 1}"#;
        let mut result = CaseResult {
            name: "a".into(),
            rows: 1,
            verdict: Ok(vec![Outcome::retry(text()), Outcome::Reject { reason: text() }]),
            messages: vec![message(json.into()), message([b"\xff", text().as_bytes(), b"\xff"].concat())],
            records: vec![Record { level: tracing::Level::INFO, message: text(), fields: vec![("a".into(), text())] }],
            calls: vec![Call { time: Duration::ZERO, memory: 0, failure: Some(failed), ..Call::default() }],
            fault: Some(text()),
            judged: true,
            batched: true,
        };
        redactor(secret).redact_result(&mut result);
        assert_eq!(result.messages[0].body, br#"{"a":"[secret]","b":1}"#);
        assert_eq!(result.messages[1].body, b"\xffit is [secret]\xff");
        let all = format!("{result:?}");
        assert!(!all.contains("it is se") && all.matches("[secret]").count() == 23, "{all}");
    }
}
