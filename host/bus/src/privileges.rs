//! What a message can do on each bus beside adding itself to its destination.
//!
//! Whatever deletes, trims, overwrites or administers must be named here: it then needs a grant of its own.
//! `producer` in `signalbus-plugin` checks the grants.

use signalbus_core::message::Effect;

/// The kinds of buses, by the schemes of their URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Amqp,
    Inbox,
    Kafka,
    Mqtt,
    Nats,
    Redis,
}

impl Kind {
    pub(super) fn of_scheme(scheme: &str) -> Self {
        match scheme {
            "nats" | "tls" => Self::Nats,
            _ if scheme.starts_with("redis") => Self::Redis,
            "mqtt" | "mqtts" => Self::Mqtt,
            "kafka" | "kafkas" => Self::Kafka,
            "postgres" | "postgresql" => Self::Inbox,
            _ => Self::Amqp,
        }
    }

    /// Returns whether messages for this destination administer the bus, or are its own records.
    pub(super) fn administers(self, destination: &str) -> bool {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| destination.starts_with(prefix));
        match self {
            // The API of JetStream, key-value and object stores, the system account; answers to other clients.
            Self::Nats => begins(&["$", "_INBOX.", "_R_.", "_GR_."]) || destination == "_INBOX",
            // The server's own topics, among them those that change its users.
            Self::Mqtt => begins(&["$"]),
            // Offsets and transactions of consumers, schemas.
            Self::Kafka => begins(&["__", "_schemas", "_confluent"]),
            // An exchange routes, and a stream and an inbox take what is added.
            Self::Amqp | Self::Redis | Self::Inbox => false,
        }
    }

    /// Returns what a header of this name does.
    pub(super) fn effect_of_header(self, name: &str) -> Effect {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match self {
            Self::Nats if is("Nats-Msg-Id") => Effect::Identifies,
            // Purge a stream, publish to another subject, change a counter, and what later servers will add.
            Self::Nats if name.get(..5).is_some_and(|begin| begin.eq_ignore_ascii_case("nats-")) => Effect::Overrides,
            // What a key-value store takes for a deletion.
            Self::Nats if is("KV-Operation") => Effect::Overrides,
            // The bus carries the message's id under this name.
            Self::Kafka | Self::Mqtt if is("id") => Effect::Identifies,
            // Of a plugin of RabbitMQ that drops duplicates.
            Self::Amqp if is("x-deduplication-header") => Effect::Identifies,
            _ => Effect::Plain,
        }
    }

    /// Returns what an option does with this value.
    pub(super) fn effect_of_option(self, name: &str, value: &str) -> Effect {
        /// The fields of an entry that are not its body.
        const OTHER_FIELDS: [&str; 3] = ["id", "key", "content_type"];
        match (self, name) {
            // Trims the stream.
            (Self::Redis, "redis.maxlen") => Effect::Overrides,
            // A body in the place of the id, or of a header, could pass for another message.
            (Self::Redis, "redis.field") if OTHER_FIELDS.contains(&value) || value.starts_with("header.") => Effect::Overrides,
            // Replaces the retained message of the topic; an empty one deletes it.
            (Self::Mqtt, "mqtt.retain") if value != "false" => Effect::Overrides,
            // All others describe their own message (properties, priority, expiry, timestamp, partition), or make it
            // fail (`amqp.mandatory`, `nats.expected-stream`).
            _ => Effect::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or what trims a stream would need no grant.
    #[test]
    fn all_schemes_of_redis_are_redis() {
        for scheme in ["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"] {
            assert_eq!(Kind::of_scheme(scheme), Kind::Redis, "{scheme}");
        }
    }

    #[test]
    fn every_bus_tells_what_administers_it() {
        for destination in ["$JS.API.STREAM.DELETE.x", "$SYS.REQ", "$KV.a.b", "$O.a", "_INBOX.a.b", "$", "_INBOX"] {
            assert!(Kind::Nats.administers(destination), "{destination}");
        }
        for destination in ["orders", "orders.$JS", "JS.API", "_inbox.a", "", "*", "x_INBOX."] {
            assert!(!Kind::Nats.administers(destination), "{destination}");
        }
        assert!(Kind::Mqtt.administers("$CONTROL/dynamic-security/v1") && !Kind::Mqtt.administers("a/$SYS"));
        assert!(Kind::Kafka.administers("__consumer_offsets") && !Kind::Kafka.administers("_orders"));
        assert!(!Kind::Amqp.administers("amq.topic") && !Kind::Redis.administers("$a") && !Kind::Inbox.administers("$a"));
    }

    #[test]
    fn headers_and_options_that_touch_others_are_known() {
        let header = |kind: Kind, name: &str| kind.effect_of_header(name);
        assert_eq!(header(Kind::Nats, "nats-msg-ID"), Effect::Identifies);
        assert_eq!(header(Kind::Nats, "Nats-Rollup"), Effect::Overrides);
        assert_eq!(header(Kind::Nats, "é Natsé"), Effect::Plain);
        assert_eq!(
            [Kind::Kafka, Kind::Mqtt, Kind::Amqp].map(|kind| header(kind, "Id")),
            [Effect::Identifies, Effect::Identifies, Effect::Plain]
        );
        let option = |kind: Kind, name: &str, value: &str| kind.effect_of_option(name, value);
        assert_eq!(option(Kind::Redis, "redis.maxlen", "0"), Effect::Overrides);
        assert_eq!(option(Kind::Redis, "redis.field", "payload"), Effect::Plain);
        assert_eq!(option(Kind::Redis, "redis.field", "id"), Effect::Overrides);
        assert_eq!(option(Kind::Mqtt, "mqtt.retain", "true"), Effect::Overrides);
        assert_eq!(option(Kind::Mqtt, "mqtt.retain", "false"), Effect::Plain);
        assert_eq!(option(Kind::Amqp, "redis.maxlen", "0"), Effect::Plain);
    }
}
