//! Grants: the settings and secrets that a plugin may read, and the connections and hosts it may reach.
//!
//! Nothing may be granted that the file does not name. Next: `grants` in `signalbus-plugin`, which are
//! checked at each use.

use std::path::Path;
use std::sync::Arc;

use super::connections::Connection;
use super::reader::{Faults, Section};
use super::texts;
use signalbus_core::suggest;
use signalbus_plugin::{Grants, check_authorities};

pub(super) fn grants(section: &Section<'_>, connections: &[Connection], faults: &mut Faults<'_>) -> Grants {
    let own = Grants { settings: settings(section, faults), secrets: secrets(section, faults), ..Grants::default() };
    let Some(grants) = section.section("grants", faults) else { return own };
    grants.refuse_unknown(&["connections", "http", "tcp", "networks"], faults);
    let granted = Grants {
        connections: grants.strings("connections", faults),
        http: grants.parsed("http", faults),
        tcp: grants.parsed("tcp", faults),
        networks: grants.parsed("networks", faults),
        ..own
    };
    for name in granted.connections.iter().filter(|name| connections.iter().all(|known| known.name != **name)) {
        let nearest = suggest::nearest(name, connections.iter().map(|known| known.name.as_str()));
        faults.add(
            grants.place("connections"),
            format!("`{}`: `[connections.{name}]` is not defined{nearest}", grants.named("connections")),
        );
    }
    granted
}

/// Reads the secrets. Short ones are refused: to redact `1234` would hide innocent text, and not to redact it
/// would show the secret.
fn secrets(section: &Section<'_>, faults: &mut Faults<'_>) -> Vec<(String, String)> {
    const SHORTEST: usize = 8;
    let secrets = texts(section, "secrets", faults);
    for (name, _) in secrets.iter().filter(|(_, secret)| (1..SHORTEST).contains(&secret.len())) {
        faults.add(
            section.place("secrets"),
            format!(
                "`{}.{name}` is shorter than {SHORTEST} bytes, too short to be redacted in logs and reasons: \
                 take a longer one, or make it a setting if it is no secret",
                section.named("secrets")
            ),
        );
    }
    secrets
}

fn settings(section: &Section<'_>, faults: &mut Faults<'_>) -> Vec<(String, String)> {
    section.section("settings", faults).map(|section| section.documents(faults)).unwrap_or_default()
}

/// Reads the file of additional certificate authorities, in PEM form.
pub(super) fn authorities(root: &Section<'_>, folder: &Path, faults: &mut Faults<'_>) -> Option<Arc<str>> {
    let section = root.section("http", faults)?;
    section.refuse_unknown(&["ca"], faults);
    let file = folder.join(section.string("ca", faults)?);
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string());
    match text.and_then(|text| check_authorities(&text).map(|()| text)) {
        Ok(text) => Some(text.into()),
        Err(fault) => {
            faults.add(section.place("ca"), format!("`http.ca`: {}: {fault}", file.display()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use std::path::Path;

    fn parse(text: &str) -> (Config, Vec<String>) {
        let text = format!("[database]\nurl = 'sqlite://o.db'\n[signals.A]\nplugin = 'a.wasm'\n{text}");
        Config::parse(Path::new("signalbus.toml"), &text)
    }

    #[test]
    fn lists_and_tables_in_settings_become_json() {
        let path = std::env::var("PATH").unwrap();
        let (config, faults) = parse(
            "[signals.A.settings]\nlist = ['${PATH}', 1_000, 0.5, true]\ntable = { key = ['a'] }\ntext = 'b'\nday = 2026-01-02",
        );
        assert_eq!(faults, [] as [&str; 0]);
        let of = |key: &str| &config.signals[0].grants.settings.iter().find(|(known, _)| known == key).unwrap().1;
        assert_eq!(*of("list"), serde_json::json!([path, 1000, 0.5, true]).to_string());
        assert_eq!(of("day"), "2026-01-02");
        assert_eq!((of("table").as_str(), of("text").as_str()), ("{\"key\":[\"a\"]}", "b"));
    }

    #[test]
    fn invalid_secrets_and_unset_variables_are_reported() {
        let (_, faults) = parse("[signals.A.secrets]\nkey = ['a']\n[signals.A.settings]\nx = ['${SIGNALBUS_NOT_SET}']");
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("`signals.A.secrets.key` must be a string, a number or a boolean, not a list"));
        assert!(faults[1].contains("the environment variable SIGNALBUS_NOT_SET is not set"));
    }

    #[test]
    fn secrets_too_short_to_be_redacted_are_refused() {
        let (_, faults) = parse("[signals.A.secrets]\nempty = ''\nlong = '12345678'\npin = '1234567'");
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("`signals.A.secrets.pin` is shorter than 8 bytes"), "{faults:?}");
        assert!(!faults[0].contains("1234567"));
    }

    #[test]
    fn grants_are_parsed_and_normalised() {
        let (config, faults) = parse(
            "[signals.A.grants]\nhttp = ['https://Shop.example:443']\ntcp = ['smtp.example:587']\nnetworks = ['10.0.0.0/8']",
        );
        assert_eq!(faults, [] as [&str; 0]);
        let shown = format!("{:?}", config.signals[0].grants);
        assert!(shown.contains("https://shop.example]") && shown.contains("smtp.example:587") && shown.contains("10.0.0.0/8"));
    }
}
