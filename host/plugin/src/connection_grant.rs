//! What a plugin may send through a connection: destinations, options, ids.
//!
//! A message outside of its grant must never reach the bus. Which destinations and options touch what others
//! have sent is known to the bus; `own_ids` knows the ids of a call.

use std::fmt;

use super::own_ids::OwnIds;
use signalbus_core::message::{Effect, Message, Publisher};
use signalbus_core::text;

/// The grant of a connection. What administers its bus, and what removes or replaces messages of others, is
/// granted only by patterns that name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionGrant {
    /// Name of the connection in the configuration.
    pub name: String,
    /// Patterns of destinations; `None` for every one that does not administer the bus.
    pub destinations: Option<Vec<String>>,
    /// Patterns of options, and of headers that act like options; `None` for every one that concerns only
    /// its own message.
    pub options: Option<Vec<String>>,
    /// Whether messages may have ids that belong to none of the signals of their call.
    pub any_ids: bool,
}

/// Why a message is refused: the part of the grant that it needs.
#[derive(Debug, PartialEq, Eq)]
enum Refused<'m> {
    Destination(&'m str),
    Option(&'m str),
    Header(&'m str),
    Id(&'m str),
}

impl ConnectionGrant {
    /// Grants every ordinary use of a connection.
    pub fn plain(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Checks a message.
    ///
    /// # Errors
    /// Returns the reason for which it is refused, with the grant that it needs.
    pub(super) fn check(&self, message: &Message, bus: &dyn Publisher, ids: &OwnIds) -> Result<(), String> {
        self.refused(message, bus, ids).map_or(Ok(()), |refused| Err(refused.to_string()))
    }

    fn refused<'m>(&self, message: &'m Message, bus: &dyn Publisher, ids: &OwnIds) -> Option<Refused<'m>> {
        let destination = message.destination.as_str();
        if !granted(self.destinations.as_deref(), destination, |name| bus.administers(name)) {
            return Some(Refused::Destination(destination));
        }
        for (name, value) in &message.options {
            let overrides = |name: &str| bus.effect_of_option(name, value) == Effect::Overrides;
            if !granted(self.options.as_deref(), name, overrides) {
                return Some(Refused::Option(name));
            }
        }
        let foreign = |id: &str| !self.any_ids && !ids.contains(id);
        for (name, value) in &message.headers {
            match bus.effect_of_header(name) {
                Effect::Identifies if foreign(value) => return Some(Refused::Id(value)),
                Effect::Overrides => {
                    let patterns = self.options.as_deref().unwrap_or_default();
                    if !granted(Some(patterns), name, |name| bus.effect_of_header(name) == Effect::Overrides) {
                        return Some(Refused::Header(name));
                    }
                }
                Effect::Identifies | Effect::Plain => {}
            }
        }
        message.id.as_deref().filter(|id| foreign(id)).map(Refused::Id)
    }
}

/// Returns whether a name is granted: by the absence of patterns if it is ordinary, or else by a pattern that
/// is as extraordinary as itself.
fn granted(patterns: Option<&[String]>, name: &str, extraordinary: impl Fn(&str) -> bool) -> bool {
    match patterns {
        None => !extraordinary(name),
        Some(patterns) => {
            let wanted = extraordinary(name);
            patterns.iter().any(|pattern| matches(pattern, name) && (!wanted || extraordinary(pattern)))
        }
    }
}

/// Returns whether a text has the form of a pattern, in which `*` stands for any run of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut text) = text.strip_prefix(begin).and_then(|text| text.strip_suffix(end)) else { return false };
    // The first place of each part leaves the most for the others.
    middle.split('*').all(|part| {
        let found = text.find(part);
        text = found.map_or("", |at| &text[at + part.len()..]);
        found.is_some()
    })
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brief = |text: &str| {
            let mut text = text.to_owned();
            text::cut(&mut text, 256);
            format!("{text:?}")
        };
        match self {
            Self::Destination(name) => {
                write!(formatter, "destination {} is not granted; add it to `destinations`", brief(name))
            }
            Self::Option(name) => write!(formatter, "option {} is not granted; add it to `options`", brief(name)),
            Self::Header(name) => {
                write!(formatter, "header {}, which acts on other messages, is not granted; add it to `options`", brief(name))
            }
            Self::Id(id) => write!(
                formatter,
                "id {} belongs to no signal of this call: take the id of a signal, with a suffix such as `#2` if it makes several messages, or add `ids = \"any\"`",
                brief(id)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signalbus_core::message::{Publishing, PublishingInOrder};

    /// A bus whose names with `$` are extraordinary, and whose header `id` identifies.
    struct Bus;

    impl Publisher for Bus {
        fn publish(&self, _: Vec<Message>) -> Publishing<'_> {
            Box::pin(std::future::ready(Ok(Vec::new())))
        }

        fn publish_in_order(&self, _: Vec<Vec<Message>>) -> PublishingInOrder<'_> {
            Box::pin(std::future::ready(Ok(Vec::new())))
        }

        fn administers(&self, destination: &str) -> bool {
            destination.starts_with('$')
        }

        fn effect_of_option(&self, name: &str, value: &str) -> Effect {
            if name.starts_with('$') && value != "no" { Effect::Overrides } else { Effect::Plain }
        }

        fn effect_of_header(&self, name: &str) -> Effect {
            match name {
                "id" => Effect::Identifies,
                _ if name.starts_with('$') => Effect::Overrides,
                _ => Effect::Plain,
            }
        }
    }

    fn names(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn check(grant: &ConnectionGrant, message: &Message) -> Result<(), String> {
        grant.check(message, &Bus, &OwnIds::of(["T:1".to_owned()]))
    }

    #[test]
    fn patterns_match_any_run_of_characters() {
        for (pattern, text) in [("a", "a"), ("*", ""), ("*", "a/b"), ("a.*", "a."), ("*.b", "a.b"), ("a*b*c", "abbc"), ("", "")] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("a", "ab"), ("", "a"), ("a.*", "a"), ("ab*ba", "aba"), ("a*b*c", "acb"), ("**x", "a"), ("A", "a")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_plain_grant_covers_what_is_ordinary() {
        let plain = ConnectionGrant::plain("bus");
        let to = |destination: &str| Message { destination: destination.into(), ..Message::default() };
        assert_eq!(check(&plain, &to("orders")), Ok(()));
        let told = "destination \"$JS\" is not granted; add it to `destinations`";
        assert_eq!(check(&plain, &to("$JS")), Err(told.into()));
        let wide = ConnectionGrant { destinations: names(&["*", "orders"]), ..plain.clone() };
        assert!(check(&wide, &to("orders")).is_ok() && check(&wide, &to("$JS")).is_err());
        let named = ConnectionGrant { destinations: names(&["$J*"]), ..plain };
        assert!(check(&named, &to("$JS")).is_ok() && check(&named, &to("orders")).is_err());
    }

    #[test]
    fn options_and_headers_that_act_on_others_need_their_names() {
        let plain = ConnectionGrant::plain("bus");
        let with = |option: &str| Message { options: vec![(option.into(), "1".into())], ..Message::default() };
        let headed = |header: &str| Message { headers: vec![(header.into(), "1".into())], ..Message::default() };
        assert!(check(&plain, &with("priority")).is_ok() && check(&plain, &headed("tenant")).is_ok());
        assert_eq!(check(&plain, &with("$max")), Err("option \"$max\" is not granted; add it to `options`".into()));
        assert!(check(&plain, &headed("$max")).unwrap_err().starts_with("header \"$max\", which acts on other"));
        let named = ConnectionGrant { options: names(&["$max"]), ..plain.clone() };
        assert!(check(&named, &with("$max")).is_ok() && check(&named, &headed("$max")).is_ok());
        assert!(check(&named, &with("priority")).is_err() && check(&named, &headed("tenant")).is_ok());
        let wide = ConnectionGrant { options: names(&["*"]), ..plain };
        assert!(check(&wide, &with("priority")).is_ok());
        assert!(check(&wide, &with("$max")).is_err() && check(&wide, &headed("$max")).is_err());
    }

    #[test]
    fn ids_are_those_of_the_call() {
        let plain = ConnectionGrant::plain("bus");
        let under = |id: &str| Message { id: Some(id.into()), ..Message::default() };
        let headed = |id: &str| Message { headers: vec![("id".into(), id.into())], ..Message::default() };
        assert!(check(&plain, &Message::default()).is_ok());
        for message in [under("T:1"), under("T:1#2"), headed("T:1")] {
            assert_eq!(check(&plain, &message), Ok(()));
        }
        for message in [under("T:2"), headed("T:2")] {
            assert!(check(&plain, &message).unwrap_err().starts_with("id \"T:2\" belongs to no signal of this call"));
            assert_eq!(check(&ConnectionGrant { any_ids: true, ..plain.clone() }, &message), Ok(()));
        }
    }
}
