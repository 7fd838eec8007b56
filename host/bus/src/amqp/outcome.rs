//! What an answer of RabbitMQ means for a message, and an error for its connection.
//!
//! Only a confirm means sent. Next: `apart`, which sends what a broken connection left unconfirmed.

use lapin::message::BasicReturnMessage;
use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPSoftError};
use lapin::uri::AMQPUri;
use lapin::{Confirmation, ErrorKind};

use super::message::AmqpPublish;
use crate::{Failure, Receipt, broken, outage, reject, unavailable};
use signalbus_core::signal::{Outage, Outcome};

/// Returns the outcome of a message, unless it is returned. The client adds what was returned to any confirmation that
/// follows, not to that of the message itself.
pub(super) fn classify(confirmation: Confirmation, returned: &mut Vec<BasicReturnMessage>) -> Outcome {
    match confirmation {
        Confirmation::Ack(message) => {
            returned.extend(message);
            Outcome::Sent
        }
        Confirmation::Nack(message) => {
            returned.extend(message);
            Outcome::retry("RabbitMQ did not accept the message: a queue is full or unavailable")
        }
        Confirmation::NotRequested => Outcome::retry("RabbitMQ was not asked to confirm"),
    }
}

/// Sets the outcomes of the messages that were returned. Returns those of which that is unknown: unless all were
/// confirmed, the client may not have handed out everything.
pub(super) fn note_returned<'p, 'm>(
    prepared: &'p [(usize, AmqpPublish<'m>)],
    returned: &[BasicReturnMessage],
    mut complete: bool,
    receipts: &mut [Receipt],
) -> Vec<&'p (usize, AmqpPublish<'m>)> {
    let mut mandatory: Vec<_> = prepared.iter().filter(|(_, publish)| publish.options.mandatory).collect();
    for message in returned {
        match mandatory.iter().position(|(_, publish)| publish.is(message)) {
            Some(at) => receipts[mandatory.remove(at).0] = Ok(unroutable(message)),
            None => complete = false,
        }
    }
    mandatory.retain(|(position, _)| !complete && receipts[*position] == Ok(Outcome::Sent));
    mandatory
}

pub(super) fn unroutable(returned: &BasicReturnMessage) -> Outcome {
    reject(format!(
        "RabbitMQ returned the message: {} {}; bind a queue to exchange {:?} for key {:?}",
        returned.reply_code,
        returned.reply_text,
        returned.delivery.exchange.as_str(),
        returned.delivery.routing_key.as_str(),
    ))
}

/// Returns the protocol error if it concerns one message or channel only.
pub(super) fn fault(error: &lapin::Error) -> Option<&AMQPError> {
    match error.kind() {
        ErrorKind::ProtocolError(fault) if matches!(fault.kind(), AMQPErrorKind::Soft(_)) => Some(fault),
        _ => None,
    }
}

/// Tells a broken connection from a bus that takes nothing.
pub(super) fn failure(error: &lapin::Error) -> Failure {
    match error.kind() {
        ErrorKind::ChannelsLimitReached => outage(error.to_string()),
        _ => broken(error.to_string()),
    }
}

pub(super) fn is_of_channel(error: &lapin::Error) -> bool {
    fault(error).is_some() || matches!(error.kind(), ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidChannel(_))
}

pub(super) fn outcome(fault: &AMQPError) -> Outcome {
    let said = fault.get_message();
    match fault.kind() {
        // The message is too large, or contradicts a property of the queue.
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::CONTENTTOOLARGE) => {
            reject(format!("RabbitMQ refuses the message: {said}"))
        }
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Outcome::retry(format!("{said}; declare it, or correct `destination`")),
        _ => Outcome::retry(format!("RabbitMQ refuses the message: {said}")),
    }
}

/// Explains a failed connection attempt.
pub(super) fn refused(error: &lapin::Error, uri: &AMQPUri) -> Outage {
    let (host, port) = (&uri.authority.host, uri.authority.port);
    match error.kind() {
        ErrorKind::ProtocolError(fault) => {
            let (said, user, vhost) = (fault.get_message(), &uri.authority.userinfo.username, &uri.vhost);
            Outage::Misconfigured { reason: format!("{host}:{port} refuses user \"{user}\" on virtual host \"{vhost}\": {said}") }
        }
        _ => unavailable(format!("{host}:{port}: {error}")),
    }
}
