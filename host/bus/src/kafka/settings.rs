//! The properties of librdkafka that a connection has.

use std::path::Path;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;

use super::drop_in_thread::DropInThread;
use super::token::Tokens;
use crate::{ConnectionConfig, tls};

/// Returns the properties of a connection to these servers.
///
/// # Errors
/// An option cannot be used.
pub(super) fn settings(config: &ConnectionConfig, address: &str) -> Result<ClientConfig, String> {
    let millis = u64::try_from(config.timeout.as_millis()).unwrap_or(u64::MAX);
    let secure = config.url.scheme() == "kafkas";
    let protocol = match (secure, config.user().is_some() || Tokens::is_msk(config)) {
        (false, false) => "plaintext",
        (false, true) => "sasl_plaintext",
        (true, false) => "ssl",
        (true, true) => "sasl_ssl",
    };
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", address)
        .set("client.id", "signalbus")
        .set("security.protocol", protocol)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // The library gives up before the call does.
        .set("message.timeout.ms", (millis * 9 / 10).clamp(1, 900_000).to_string())
        .set("topic.metadata.propagation.max.ms", (millis / 3).clamp(1, 3_600_000).to_string())
        .set("reconnect.backoff.max.ms", "1000")
        // They tell of quotas.
        .set("statistics.interval.ms", "5000")
        // The partitioner of the Java client.
        .set("partitioner", "murmur2_random")
        // The server decides which messages are too large.
        .set("message.max.bytes", "100000000");
    // (Under its other name, it would be set in no order.)
    if !config.options.iter().any(|(name, _)| name == "linger.ms") {
        settings.set("queue.buffering.max.ms", "0");
    }
    log_in(config, &mut settings);
    if let Some(ca) = &config.ca {
        settings.set("ssl.ca.pem", tls::roots(ca)?);
    }
    for (name, value) in config.options.iter().filter(|(name, _)| !Tokens::take(name)) {
        if let Some(what) = reserved(name) {
            return Err(format!("`options`: \"{name}\" cannot be changed: it is for {what}"));
        }
        // (`probe` looks for the system's certificates.)
        let is_path = name.ends_with(".location") && value != "probe";
        let value = if is_path { existing(name, &config.folder.join(value))? } else { value.clone() };
        settings.set(name, value);
    }
    Ok(settings)
}

/// Returns a path as text. The library does not name the file that it cannot read.
fn existing(name: &str, path: &Path) -> Result<String, String> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(path.display().to_string()),
        Err(error) => Err(format!("`options`: \"{name}\": {}: {error}", path.display())),
    }
}

/// Sets who logs in, and how; tokens are fetched by `token`.
fn log_in(config: &ConnectionConfig, settings: &mut ClientConfig) {
    if Tokens::is_msk(config) {
        settings.set("sasl.mechanism", "OAUTHBEARER");
    }
    let Some(user) = config.user() else { return };
    let mechanism = config.query("mechanism").unwrap_or_else(|| "PLAIN".to_owned());
    if mechanism != "OAUTHBEARER" {
        settings.set("sasl.username", user).set("sasl.password", config.password().unwrap_or_default());
    }
    settings.set("sasl.mechanism", mechanism);
}

/// Has the client library check the settings: it opens the files that they name, and loads the mechanism.
pub(super) fn validate(settings: &ClientConfig) -> Result<(), String> {
    // Without a server, it connects to none.
    let mut settings = settings.clone();
    settings.remove("bootstrap.servers");
    match settings.create::<BaseProducer>() {
        Ok(producer) => {
            drop(DropInThread::new(producer));
            Ok(())
        }
        Err(KafkaError::ClientConfig(_, told, name, _)) => Err(format!("`options`: \"{name}\": {told}")),
        Err(KafkaError::ClientCreation(told)) => Err(format!("Kafka client: {told}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns what the relay's guarantees depend on a property for; `None` if it may be changed.
fn reserved(property: &str) -> Option<&'static str> {
    Some(match property {
        "acks" | "request.required.acks" | "enable.idempotence" | "delivery.report.only.error" | "test.mock.num.brokers" => {
            "the confirmation of messages"
        }
        "transactional.id" => "messages that are not in a transaction",
        "message.timeout.ms" | "delivery.timeout.ms" => "`timeout`: change that",
        "bootstrap.servers"
        | "metadata.broker.list"
        | "security.protocol"
        | "sasl.mechanism"
        | "sasl.mechanisms"
        | "sasl.username"
        | "sasl.password" => "`url`: change that",
        "enable.ssl.certificate.verification" | "ssl.endpoint.identification.algorithm" => "the identity of the server",
        "default_topic_conf" | "interceptors" | "opaque" | "plugin.library.paths" => "the relay's own code",
        property if property.starts_with("sasl.oauthbearer.") => {
            "the relay, which takes the endpoint of tokens, their scope, and the client in the URL"
        }
        property if property.ends_with("_cb") => "the relay's own code",
        _ => return None,
    })
}
