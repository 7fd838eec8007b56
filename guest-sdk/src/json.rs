//! Helpers to write rows as JSON, exactly. `value` and `signal` use them.

use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Displays bytes as padded base64, RFC 4648 section 4.
pub(crate) struct Base64<'a>(pub &'a [u8]);

impl fmt::Display for Base64<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for chunk in self.0.chunks(3) {
            let byte = |position| u32::from(chunk.get(position).copied().unwrap_or(0));
            let group = byte(0) << 16 | byte(1) << 8 | byte(2);
            for position in 0..4 {
                let index = (group >> (18 - 6 * position)) & 0x3f;
                let used = position <= chunk.len();
                out.write_char(if used { char::from(ALPHABET[index as usize]) } else { '=' })?;
            }
        }
        Ok(())
    }
}

/// Embeds a JSON document in the surrounding one, unchanged.
pub(crate) fn embed<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<&RawValue>(text).map_err(S::Error::custom)?.serialize(serializer)
}
