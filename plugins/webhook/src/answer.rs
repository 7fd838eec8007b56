//! Turns a server's response into the signal's outcome.

use std::time::{Duration, SystemTime};

use signalbus_guest::http::{Error as HttpError, Response};
use signalbus_guest::{Error, Outcome, Result};

/// Maximum wait that a server can ask for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Maximum number of bytes of a response that a reason quotes.
const QUOTED: usize = 200;

/// Decides on the result of a request: an outage if nothing was sent, since there is no connection or no grant.
pub fn outcome(answer: std::result::Result<Response, HttpError>) -> Result {
    match answer {
        Ok(response) => Ok(outcome_of(&response)),
        Err(error @ HttpError::Denied) => Err(Error::misconfigured(error.to_string())),
        Err(error @ HttpError::Unreachable(_)) => Err(Error::unavailable(error.to_string())),
        Err(error @ HttpError::Invalid(_)) => Err(Error::reject(error.to_string())),
        Err(error) => Err(Error::retry(error.to_string())),
    }
}

fn outcome_of(response: &Response) -> Outcome {
    let status = response.status;
    match status {
        200..=299 => Outcome::Sent,
        410 => Outcome::reject("the receiver is gone (410)"),
        429 | 503 => match response.header("retry-after").and_then(wait) {
            Some(after) => Outcome::retry_after(after, describe(response)),
            None => Outcome::retry(describe(response)),
        },
        408 | 425 | 500..=599 => Outcome::retry(describe(response)),
        _ => Outcome::reject(describe(response)),
    }
}

/// Parses `Retry-After`: seconds, or a date.
fn wait(text: &str) -> Option<Duration> {
    let text = text.trim();
    let after = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(after.min(LONGEST))
}

/// Describes a response: its status, and the beginning of its body.
fn describe(response: &Response) -> String {
    let body = String::from_utf8_lossy(&response.body[..response.body.len().min(QUOTED)]);
    let body = body.trim_matches(|c: char| c.is_whitespace() || c == char::REPLACEMENT_CHARACTER);
    let status = response.status;
    match (body, response.header("location")) {
        (_, Some(location)) if (300..400).contains(&status) => {
            let location: String = location.chars().take(QUOTED).collect();
            format!("the server answered {status}: redirect to {location} not followed")
        }
        ("", _) => format!("the server answered {status}"),
        (body, _) => format!("the server answered {status}: {body}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_status(status: u16) -> Outcome {
        outcome_of(&Response::new(status).with_body("why"))
    }

    #[test]
    fn the_status_decides_the_outcome() {
        for status in [200, 201, 204, 299] {
            assert_eq!(of_status(status), Outcome::Sent);
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(of_status(status), Outcome::retry(format!("the server answered {status}: why")));
        }
        for status in [300, 304, 400, 401, 404, 422, 600] {
            assert_eq!(of_status(status), Outcome::reject(format!("the server answered {status}: why")));
        }
        assert_eq!(of_status(410), Outcome::reject("the receiver is gone (410)"));
    }

    #[test]
    fn a_redirect_is_rejected_with_its_location() {
        let response = Response::new(302).with_header("location", "http://169.254.169.254/");
        let reason = "the server answered 302: redirect to http://169.254.169.254/ not followed";
        assert_eq!(outcome_of(&response), Outcome::reject(reason));
    }

    #[test]
    fn retry_after_is_respected() {
        let wait_of = |status, after: &str| outcome_of(&Response::new(status).with_header("Retry-After", after));
        let told = "the server answered 503";
        assert_eq!(wait_of(503, "120"), Outcome::retry_after(Duration::from_secs(120), told));
        assert_eq!(wait_of(503, "99999999"), Outcome::retry_after(LONGEST, told));
        assert_eq!(wait_of(503, "Sun, 06 Nov 1994 08:49:37 GMT"), Outcome::retry_after(Duration::ZERO, told));
        assert_eq!(wait_of(503, "soon"), Outcome::retry(told));
        assert_eq!(wait_of(500, "120"), Outcome::retry("the server answered 500"));
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(600));
        let Outcome::Retry(retry) = wait_of(429, &later) else { panic!("429 is a retry") };
        assert!((590_000..=600_000).contains(&retry.after_ms.unwrap()));
    }

    #[test]
    fn only_the_beginning_of_a_response_is_quoted() {
        let response = Response::new(400).with_body("é".repeat(500));
        assert_eq!(describe(&response), format!("the server answered 400: {}", "é".repeat(100)));
        let split = Response::new(400).with_body(format!("a{}", "é".repeat(500)));
        assert_eq!(describe(&split), format!("the server answered 400: a{}", "é".repeat(99)));
    }
}
