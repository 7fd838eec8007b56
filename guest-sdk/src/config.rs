//! Settings and secrets from the signal type's configuration.
//!
//! ```toml
//! [signals.OrderPlaced.settings]
//! url = "https://shop.example/hooks"
//! parallel = 4
//!
//! [signals.OrderPlaced.secrets]
//! token = "${SHOP_TOKEN}"
//! ```
//!
//! ```
//! use signalbus_guest::{Outcome, Result, Signal, config};
//!
//! #[derive(serde::Deserialize)]
//! struct Settings {
//!     url: String,
//!     #[serde(default = "one")]
//!     parallel: u32,
//! }
//! # fn one() -> u32 { 1 }
//!
//! fn send(_signal: &Signal) -> Result {
//!     let settings: Settings = config::parse()?;
//!     let token = config::require_secret("token")?;
//! #   assert_eq!((settings.parallel, settings.url.as_str()), (4, "https://shop.example/hooks"));
//! #   assert_eq!(token, "s3cret");
//!     Ok(Outcome::Sent)
//! }
//! # use signalbus_guest::testing;
//! # testing::settings([("url", "https://shop.example/hooks"), ("parallel", "4")]);
//! # testing::secrets([("token", "s3cret")]);
//! # assert_eq!(send(&Signal::builder("OrderPlaced").build()), Ok(Outcome::Sent));
//! ```

use crate::fault::Fault;
use crate::host;
use crate::{Error, Result};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use std::vec;

type Read<T> = std::result::Result<T, Fault>;

/// Returns a setting's text; `None` if the configuration has no setting of that name.
pub fn get(key: &str) -> Option<String> {
    host::setting(key)
}

/// Returns a required setting's text.
///
/// # Errors
///
/// If it is missing: *misconfigured*, so that the relay parks the signal type.
pub fn require(key: &str) -> Result<String> {
    get(key).ok_or_else(|| Error::misconfigured(format!("setting \"{key}\" is missing")))
}

/// Reads all settings into a type of your own, whose fields have their names.
///
/// Numbers and booleans are parsed from text, lists and tables from JSON.
///
/// # Errors
///
/// If a setting is missing or does not fit: *misconfigured*, so that the relay parks the signal type.
pub fn parse<T: DeserializeOwned>() -> Result<T> {
    let settings = Settings::from_settings(host::settings());
    T::deserialize(MapAccessDeserializer::new(settings)).map_err(|fault| {
        Error::misconfigured(match fault {
            Fault::Missing(_) | Fault::Unknown { .. } => format!("setting {fault}"),
            other => other.to_string(),
        })
    })
}

/// Returns a secret; `None` if the configuration has no secret of that name.
///
/// The relay logs that the secret was read, but never its value. Do not log it either.
pub fn secret(key: &str) -> Option<String> {
    host::secret(key)
}

/// Returns a required secret.
///
/// # Errors
///
/// If it is missing: *misconfigured*, so that the relay parks the signal type.
pub fn require_secret(key: &str) -> Result<String> {
    secret(key).ok_or_else(|| Error::misconfigured(format!("secret \"{key}\" is missing")))
}

/// Deserializes the settings as a map.
struct Settings {
    rest: vec::IntoIter<(String, String)>,
    current: (String, String),
}

impl Settings {
    fn from_settings(settings: Vec<(String, String)>) -> Self {
        Self { rest: settings.into_iter(), current: Default::default() }
    }
}

impl<'de> MapAccess<'de> for Settings {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        let Some(setting) = self.rest.next() else {
            return Ok(None);
        };
        self.current = setting;
        seed.deserialize(self.current.0.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<S::Value> {
        let (key, value) = &self.current;
        seed.deserialize(Setting(value)).map_err(|fault| fault.at(&format!("setting \"{key}\""), &format!("{value:?}")))
    }
}

/// Deserializes a setting's text as the type that the author asks for.
struct Setting<'a>(&'a str);

macro_rules! scalars {
    ($($method:ident $visit:ident $scalar:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
            match self.0.parse::<$scalar>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => visitor.visit_str(self.0),
            }
        }
    )*};
}

macro_rules! nested {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Read<V::Value> {
            let mut json = serde_json::Deserializer::from_reader(self.0.as_bytes());
            let value = json.$method($($argument,)* visitor);
            value.and_then(|value| json.end().map(|()| value)).map_err(Fault::custom)
        }
    )*};
}

impl<'de> Deserializer<'de> for Setting<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Read<V::Value> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    scalars! {
        deserialize_bool visit_bool bool;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
        deserialize_f32 visit_f32 f32;
        deserialize_f64 visit_f64 f64;
    }

    nested! {
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct identifier ignored_any
    }
}
