//! What the delivery of a message means, and an error for the others of its request.
//!
//! Only a delivery means sent. Next: `explain`, why there is none.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::future_producer::OwnedDeliveryResult;

use crate::{Receipt, outage, reject};
use signalbus_core::signal::Outcome;

pub(super) fn classify(delivery: OwnedDeliveryResult, topic: &str) -> Receipt {
    match delivery {
        Ok(_) => Ok(Outcome::Sent),
        Err((error, _)) => refusal(&error, topic),
    }
}

/// Returns whether an error may concern other messages of the same request.
pub(super) fn is_of_request(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::MessageSizeTooLarge
                | Code::MessageBatchTooLarge
                | Code::InvalidMessage
                | Code::InvalidMessageSize
                | Code::InvalidRecord
                | Code::InvalidDifferentRecord
                | Code::InvalidTimestamp
        )
    )
}

pub(super) fn refusal(error: &KafkaError, topic: &str) -> Receipt {
    let Some(code) = error.rdkafka_error_code() else { return Err(outage(error.to_string())) };
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            Ok(Outcome::retry(format!("Kafka has no topic \"{topic}\", or no such partition of it: create it ({code})")))
        }
        Code::MessageSizeTooLarge => Ok(reject(format!("the message is larger than topic \"{topic}\" allows ({code})"))),
        Code::InvalidMessage | Code::InvalidRecord | Code::InvalidTimestamp | Code::InvalidTopic | Code::InvalidMessageSize => {
            Ok(reject(format!("Kafka refuses a message for topic \"{topic}\": {code}")))
        }
        Code::TopicAuthorizationFailed => {
            Ok(Outcome::retry(format!("Kafka does not allow this user to write to topic \"{topic}\"")))
        }
        code => Err(outage(code.to_string())),
    }
}
