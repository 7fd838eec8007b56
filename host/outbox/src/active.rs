//! The recorded claims and deferrals that a new claim must avoid.
//!
//! A snapshot, with the database's time: what is due must not change between one row and the next. Next:
//! `claim`, which reads it, and `window`, which applies it.

use super::database::{Cell, number};

/// A claim, as the side table has it.
#[derive(Debug)]
pub(super) struct ClaimRecord {
    pub(super) token: String,
    pub(super) mine: bool,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) order_keys: Vec<String>,
    pub(super) takeovers: u32,
    pub(super) expires_in: i64,
}

/// What is already spoken for when a claim is taken.
#[derive(Default)]
pub(super) struct RecordedClaims {
    pub(super) claims: Vec<ClaimRecord>,
    /// When the first and the last deferred signal are due, in ms from now; `None`: none is deferred.
    pub(super) due: Option<(i64, i64)>,
    /// When the first of those that are not due yet is due, in ms from now.
    pub(super) next_due: Option<i64>,
    /// The database's clock when all this was read. It goes on while rows are read: what is due must
    /// not change between one row and the next.
    pub(super) now: Option<i64>,
}

impl ClaimRecord {
    pub(super) fn new(from: Option<String>, to: Option<String>, order_keys: Vec<String>) -> Self {
        let token = uuid::Uuid::new_v4().simple().to_string();
        Self { token, mine: true, from, to, order_keys, takeovers: 0, expires_in: 0 }
    }

    pub(super) fn read(row: &[Cell], owner: &str) -> Self {
        let order_keys = serde_json::from_str(row[5].as_deref().unwrap_or_default());
        Self {
            token: row[1].clone().unwrap_or_default(),
            mine: row[2].as_deref() == Some(owner),
            from: row[3].clone(),
            to: row[4].clone(),
            order_keys: order_keys.unwrap_or_default(),
            takeovers: number(&row[6]),
            expires_in: number(&row[7]),
        }
    }

    /// The same range and keys, under a token of its own.
    pub(super) fn rest(&self) -> Self {
        Self {
            token: uuid::Uuid::new_v4().simple().to_string(),
            from: self.from.clone(),
            to: self.to.clone(),
            order_keys: self.order_keys.clone(),
            ..*self
        }
    }
}

impl RecordedClaims {
    /// Some signals may be deferred, and nothing is claimed.
    pub(super) fn deferred() -> Self {
        Self { claims: Vec::new(), due: Some((0, 1)), next_due: None, now: None }
    }
}
