//! What the drivers do not see to in a database's URL: IPv6 addresses, and options that nobody knows.
//!
//! Never shows a URL: it may hold a password.

use url::{Host, Url};

use super::Error;

/// Parses a URL whose options must be among these. (`options[NAME]` stands for every name.)
pub(super) fn checked(text: &str, known: &[&str]) -> Result<Url, Error> {
    let url = Url::parse(text).map_err(|error| Error::Table(format!("database url: {error}")))?;
    let is_known =
        |key: &str| known.iter().any(|known| *known == key || *known == "options[NAME]" && key.starts_with("options["));
    if let Some((unknown, _)) = url.query_pairs().find(|(key, _)| !is_known(key)) {
        let nearest = signalbus_core::suggest::nearest(&unknown, known.iter().copied());
        return Err(Error::Table(format!("database url: unknown option \"{unknown}\"{nearest} (known: {})", known.join(", "))));
    }
    Ok(url)
}

/// The host as it is connected to, if it is an IPv6 address: without its brackets.
pub(super) fn ipv6(url: &Url) -> Option<String> {
    match url.host() {
        Some(Host::Ipv6(address)) => Some(address.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_options_are_refused() {
        let refused = checked("postgres://u:secret@h/d?sslmod=require", &["sslmode", "host"]).unwrap_err().to_string();
        assert_eq!(refused, "database url: unknown option \"sslmod\"; did you mean \"sslmode\"? (known: sslmode, host)");
        assert!(checked("postgres://h/d?options[a]=1&sslmode=disable", &["sslmode", "options[NAME]"]).is_ok());
    }

    #[test]
    fn an_ipv6_address_has_no_brackets() {
        for (url, host) in [("mysql://u:p@[::1]:3306/d", Some("::1")), ("mysql://h/d", None), ("mysql://127.0.0.1/d", None)] {
            assert_eq!(ipv6(&checked(url, &[]).unwrap()).as_deref(), host);
        }
    }
}
