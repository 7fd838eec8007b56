use crate::log::Level;
use crate::{Error, Result, config, log, testing};
use serde::Deserialize;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    url: String,
    port: u16,
    #[serde(default)]
    deep: bool,
    rate: Option<f64>,
    #[serde(default)]
    hosts: Vec<String>,
    level: Option<Level>,
}

fn parse(settings: &[(&'static str, &'static str)]) -> Result<Settings> {
    testing::settings(settings.iter().copied());
    config::parse()
}

#[test]
fn settings_are_read_into_typed_fields() {
    let settings = parse(&[
        ("url", "http://x"),
        ("port", "80"),
        ("deep", "true"),
        ("rate", "0.5"),
        ("hosts", r#"["a", "b"]"#),
        ("level", "warn"),
    ]);
    let expected = Settings {
        url: "http://x".into(),
        port: 80,
        deep: true,
        rate: Some(0.5),
        hosts: vec!["a".into(), "b".into()],
        level: Some(Level::Warn),
    };
    assert_eq!(settings, Ok(expected));
}

#[test]
fn a_wrong_setting_is_named() {
    let cases: [(&[_], &str); 5] = [
        (&[("url", "x")], "setting \"port\" is missing"),
        (&[("url", "x"), ("port", "http")], "setting \"port\": expected u16, found \"http\""),
        (&[("url", "x"), ("port", "65536")], "setting \"port\": expected u16, found \"65536\""),
        (&[("level", "loud")], "setting \"level\": expected \"trace\", \"debug\", \"info\", \"warn\", \"error\", found \"loud\""),
        (&[("uri", "x")], "setting \"uri\" is unknown, expected \"url\", \"port\", \"deep\", \"rate\", \"hosts\", \"level\""),
    ];
    for (settings, expected) in cases {
        assert_eq!(parse(settings), Err(Error::misconfigured(expected)));
    }
}

#[test]
fn a_missing_required_setting_is_an_outage() {
    assert_eq!(config::require("url"), Err(Error::misconfigured("setting \"url\" is missing")));
    let missing = Err(Error::misconfigured("secret \"token\" is missing"));
    assert_eq!(config::require_secret("token"), missing);
    testing::settings([("url", "x")]);
    testing::secrets([("token", "s3cret")]);
    assert_eq!(config::require("url").as_deref(), Ok("x"));
    assert_eq!(config::require_secret("token").as_deref(), Ok("s3cret"));
    assert_eq!((config::get("token"), config::secret("url")), (None, None));
}

#[test]
fn records_keep_their_fields_in_order() {
    log::warn!("bus is slow", seconds = 2.5, host = "a");
    log::info!("ready",);
    let records = testing::take_records();
    let fields = [("seconds", "2.5"), ("host", "a")];
    assert_eq!(records[0].level, Level::Warn);
    assert_eq!(records[0].message, "bus is slow");
    assert_eq!(records[0].fields, fields.map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert_eq!((records[1].level, records[1].fields.len()), (Level::Info, 0));
    assert!(testing::take_records().is_empty());
}
