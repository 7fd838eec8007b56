//! Explains to the author of a plugin in Python or JavaScript that a value is not what the contract asks for.
//!
//! In other languages the compiler finds such values. In these, the generated code finds them when they pass to the
//! relay, and ends in a trap whose message is about itself. What it says depends on the versions of its tools: a
//! message that is not known here stays as it is.

use super::backtrace::Backtrace;
use signalbus_core::text;

/// What a plugin in a language has to return.
struct Language {
    /// The function for one signal; that for many ends with an `s`.
    function: &'static str,
    outcomes: &'static str,
    list: &'static str,
}

const PYTHON: Language = Language {
    function: "send_signalbus_message",
    outcomes: "Outcome_Sent(), Outcome_Skip(), Outcome_Retry(Retry(reason, after_ms)) or Outcome_Reject(reason)",
    list: "a list",
};

const JAVASCRIPT: Language = Language {
    function: "sendSignalbusMessage",
    outcomes: r#"{ tag: "sent" }, { tag: "skip" }, { tag: "retry", val: { reason, afterMs } } or { tag: "reject", val: reason }"#,
    list: "an array",
};

/// Explains the last words of a plugin that trapped at a boundary to the relay, if they are about a wrong value.
pub(super) fn explain(words: &str, boundary: &str) -> Option<String> {
    if let Some(import) = boundary.strip_prefix(Backtrace::IMPORT) {
        let passed = passed_in_python(&PythonError::read(words)?);
        return Some(format!("the plugin called `{}` with {passed}", import.replace('-', "_")));
    }
    let (language, returned) = match PythonError::read(words) {
        Some(error) => (PYTHON, returned_in_python(&error)),
        None => (JAVASCRIPT, returned_in_javascript(words)?),
    };
    let Language { function, outcomes, list } = language;
    Some(match boundary.ends_with('s') {
        true => format!(
            "the plugin's `{function}s` returned {returned}, expected {list} with one of these for each signal: {outcomes}"
        ),
        false => format!("the plugin's `{function}` returned {returned}, expected {outcomes}"),
    })
}

/// What the runtime of Python could not convert.
enum PythonError<'a> {
    /// A value, and the class that it should have, if known.
    Cast(&'a str, Option<&'a str>),
    /// An object of this class, where only some classes are possible.
    Class(&'a str),
    /// Another exception, by its class and message.
    Other(&'a str, &'a str),
}

impl<'a> PythonError<'a> {
    fn read(words: &'a str) -> Option<Self> {
        let panic = words.strip_prefix("panicked at runtime/")?;
        let (_, error) = panic.split_once("called `Result::unwrap()` on an `Err` value: ")?;
        if let Some(cast) = error.strip_prefix("CastError { from: ") {
            let (value, class) = cast.rsplit_once(", classinfo: <class '").unwrap_or((cast, ""));
            return Some(Self::Cast(value, class.split_once('\'').map(|(class, _)| class)));
        }
        let (kind, exception) = error.strip_prefix("PyErr { type: <class '")?.split_once("'>, value: ")?;
        let exception = exception.rsplit_once(", traceback: ").map_or(exception, |(exception, _)| exception);
        let message = exception.strip_prefix(kind)?.trim_matches(['(', ')', '"']);
        let class = message.strip_prefix("<class '").and_then(|class| class.strip_suffix("'>"));
        Some(class.and_then(|class| class.rsplit('.').next()).map_or(Self::Other(kind, message), Self::Class))
    }
}

fn passed_in_python(error: &PythonError<'_>) -> String {
    match error {
        PythonError::Cast(value, Some(class)) => format!("{}, expected a value of class {class}", shown(value)),
        PythonError::Cast(value, None) => shown(value),
        PythonError::Class(class) => format!("a value of class {}", shown(class)),
        PythonError::Other(_, message) => format!("a wrong value: {}", shown(message)),
    }
}

fn returned_in_python(error: &PythonError<'_>) -> String {
    match error {
        PythonError::Cast(value, _) if value.starts_with("<coroutine ") => "a coroutine, as `async def` does".to_owned(),
        PythonError::Cast(value, _) => shown(value),
        PythonError::Class("type") => "a class, not an object of it, as an outcome or outage".to_owned(),
        PythonError::Class(class) => format!("a value of class {} as an outcome or outage", shown(class)),
        PythonError::Other("AttributeError", message) => format!("a wrong value in place of a Retry ({})", shown(message)),
        PythonError::Other(_, message) if message.contains("integer") || message.contains("unsigned") => {
            format!("an invalid `after_ms` ({})", shown(message))
        }
        PythonError::Other(_, message) => format!("an invalid reason ({})", shown(message)),
    }
}

fn returned_in_javascript(words: &str) -> Option<String> {
    let missing = |start: &str| {
        let (name, value) = words.strip_prefix(start)?.split_once(" is ")?;
        name.bytes().all(|byte| byte.is_ascii_digit()).then_some(value)
    };
    if let Some(value) = missing(r#"can't access property "length", vec"#) {
        return Some(shown(value));
    }
    if let Some(value) = missing(r#"can't access property "tag", variant"#) {
        return Some(format!("{} as an outcome or outage", shown(value)));
    }
    if let Some(value) = words.strip_prefix("e is ") {
        return Some(format!("a retry whose `val` is {}", shown(value)));
    }
    if let Some(kind) = words.strip_prefix("expected a string, received [") {
        return Some(format!("a reason of type {}", shown(kind.trim_end_matches(']'))));
    }
    let not_whole = words.ends_with(" to BigInt") || words.contains(" can't be converted to BigInt because ");
    if words == "invalid BigInt syntax" || not_whole && !words.starts_with("uncaught ") {
        return Some(format!("an invalid `afterMs` ({})", shown(words)));
    }
    let (tag, value) = words.strip_prefix("invalid variant tag value `")?.split_once("` (received `")?;
    let (value, _) = value.split_once("`) specified for `Outcome`")?;
    Some(match (tag, value) {
        ("undefined", "[object Object]") => "an object without `tag` as an outcome".to_owned(),
        ("undefined", value) => format!("`{}` as an outcome", shown(value)),
        (tag, _) => format!("an outcome with the unknown tag {}", shown(tag)),
    })
}

/// A text of the plugin's, cut if it is long.
fn shown(text: &str) -> String {
    const LONGEST: usize = 120;
    let mut text = text.to_owned();
    text::cut(&mut text, LONGEST);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPORT: &str = "signalbus:plugin/bulk-sender@0.1.0#send-signalbus-messages";

    fn python(boundary: &str, error: &str) -> Option<String> {
        let words = format!("panicked at runtime/src/lib.rs:1704:44: called `Result::unwrap()` on an `Err` value: {error}");
        explain(&words, boundary)
    }

    #[test]
    fn only_known_messages_are_explained() {
        assert_eq!(explain("can't access property \"length\", row is undefined", EXPORT), None);
        assert_eq!(
            explain("panicked at src/lib.rs:3:1: called `Result::unwrap()` on an `Err` value: CastError { from: 1", EXPORT),
            None
        );
        assert_eq!(python(EXPORT, "ParseError"), None);
        assert_eq!(explain("e is undefined", "adapter publish"), None);
        // An exception of the author's own.
        let uncaught = "uncaught RangeError: 1.5 can't be converted to BigInt because it isn't an integer (throw an outage";
        assert_eq!(explain(uncaught, EXPORT), None);
    }

    #[test]
    fn a_value_that_was_cut_is_still_explained() {
        let long = python(EXPORT, &format!("CastError {{ from: '{}", "é".repeat(200))).unwrap();
        assert!(long.contains("é… (cut, 401 bytes), expected a list"), "{long}");
    }

    #[test]
    fn a_sender_of_one_signal_returns_one_outcome() {
        let told =
            explain("can't access property \"tag\", variant3 is null", "signalbus:plugin/sender@0.1.0#send-signalbus-message");
        assert!(
            told.unwrap()
                .starts_with("the plugin's `sendSignalbusMessage` returned null as an outcome or outage, expected { tag")
        );
    }

    #[test]
    fn an_argument_is_explained_too() {
        let told = python("adapter publish", "CastError { from: 'text', classinfo: <class 'bytes'> }");
        assert_eq!(told.unwrap(), "the plugin called `publish` with 'text', expected a value of class bytes");
    }
}
