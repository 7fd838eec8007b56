//! Grants: the settings and secrets that a plugin may read, and the connections and hosts it may reach.
//!
//! Nothing may be granted that the file does not name. Next: `grants` in `signalbus-plugin`, which are
//! checked at each use.

use std::path::Path;
use std::sync::Arc;

use super::connections::Connection;
use super::reader::{Faults, Item, Section};
use super::texts;
use signalbus_core::suggest;
use signalbus_plugin::{ConnectionGrant, Grants, check_authorities};

pub(super) fn grants(section: &Section<'_>, connections: &[Connection], faults: &mut Faults<'_>) -> Grants {
    let own = Grants { settings: settings(section, faults), secrets: secrets(section, faults), ..Grants::default() };
    let Some(grants) = section.section("grants", faults) else { return own };
    grants.refuse_unknown(&["connections", "http", "tcp", "networks"], faults);
    Grants {
        connections: connection_grants(&grants, connections, faults),
        http: grants.parsed("http", faults),
        tcp: grants.parsed("tcp", faults),
        networks: grants.parsed("networks", faults),
        ..own
    }
}

fn connection_grants(grants: &Section<'_>, connections: &[Connection], faults: &mut Faults<'_>) -> Vec<ConnectionGrant> {
    let mut granted: Vec<ConnectionGrant> = Vec::new();
    for (at, item) in grants.mixed("connections", faults) {
        let grant = match item {
            Item::Text(name) => ConnectionGrant::plain(&name),
            Item::Table(table) => connection_grant(&table, faults),
        };
        let name = &grant.name;
        if connections.iter().all(|known| known.name != *name) {
            let nearest = suggest::nearest(name, connections.iter().map(|known| known.name.as_str()));
            faults.add(at, format!("`{}`: `[connections.{name}]` is not defined{nearest}", grants.named("connections")));
        }
        if granted.iter().any(|other| other.name == *name) {
            faults.add(at, format!("`{}`: connection \"{name}\" is named twice", grants.named("connections")));
        }
        granted.push(grant);
    }
    granted
}

fn connection_grant(table: &Section<'_>, faults: &mut Faults<'_>) -> ConnectionGrant {
    table.refuse_unknown(&["name", "destinations", "options", "ids"], faults);
    let name = table.string("name", faults).unwrap_or_default();
    if table.find("name").is_none() {
        faults.add(table.offset(), format!("`{}` is missing", table.named("name")));
    }
    let mut patterns = |key: &str| table.find(key).map(|_| table.strings(key, faults));
    let (destinations, options) = (patterns("destinations"), patterns("options"));
    let ids = table.string("ids", faults).unwrap_or_else(|| "own".to_owned());
    if !["own", "any"].contains(&ids.as_str()) {
        faults.add(table.place("ids"), format!("`{}` must be \"own\" or \"any\"", table.named("ids")));
    }
    ConnectionGrant { name, destinations, options, any_ids: ids == "any" }
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
    use super::ConnectionGrant;
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
    fn a_connection_may_be_granted_in_part() {
        let bus = "[connections.bus]\nurl = 'redis://h'\n[connections.log]\nurl = 'redis://h'\n[signals.A.grants]\n";
        let (config, faults) = parse(&format!(
            "{bus}connections = ['log', {{ name = 'bus', destinations = ['orders.*'], options = [], ids = 'any' }}]"
        ));
        assert_eq!(faults, [] as [&str; 0]);
        let bus_in_part = ConnectionGrant {
            destinations: Some(vec!["orders.*".into()]),
            options: Some(vec![]),
            any_ids: true,
            ..ConnectionGrant::plain("bus")
        };
        assert_eq!(config.signals[0].grants.connections, [ConnectionGrant::plain("log"), bus_in_part]);
        let granted: Vec<_> = config.signals[0].granted_connections().map(|(grant, own)| (&*grant.name, &*own.name)).collect();
        assert_eq!(granted, [("log", "log"), ("bus", "bus")]);
        for (list, words) in [
            ("'bus', 'bus'", "connection \"bus\" is named twice"),
            ("{ name = 'bos' }", "`[connections.bos]` is not defined; did you mean \"bus\"?"),
            ("{ name = 'bus', destination = ['a'] }", "unknown key `signals.A.grants.connections.destination`"),
            ("{ name = 'bus', ids = 'all' }", "`signals.A.grants.connections.ids` must be \"own\" or \"any\""),
            ("{ name = 'bus', options = 'a' }", "must be a list of strings, not a string"),
            ("7", "`signals.A.grants.connections` must be a list of strings or tables, not a number"),
            ("{ destinations = [] }", "`signals.A.grants.connections.name` is missing"),
        ] {
            let (_, faults) = parse(&format!("{bus}connections = [{list}]"));
            assert!(faults[0].contains(words), "{list}: {faults:?}");
        }
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
