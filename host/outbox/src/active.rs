//! The recorded claims and deferrals that a new claim must avoid.
//!
//! A snapshot, with the database's time: what is due must not change between one row and the next. Next:
//! `claim`, which reads it, and `window`, which applies it.

use super::database::{Cell, number};
use super::identity::Seed;
use super::open::Live;
use super::trial::{Rule, is_broken};

/// The keys above the first, up to the second.
pub(super) type Range = (Option<String>, String);

/// A claim, as the side table has it.
#[derive(Debug)]
pub(super) struct ClaimRecord {
    pub(super) token: String,
    /// Ranges may overlap: a row belongs to the claim with the lowest serial number that covers it.
    pub(super) serial: i64,
    /// That of the ids of its signals.
    pub(super) seed: Seed,
    pub(super) mine: bool,
    /// Nobody holds it: what was in flight under it is to be sent again.
    pub(super) released: bool,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    /// Ranges in it that were settled before others: what is in them now, appeared later.
    pub(super) settled: Vec<Range>,
    /// The order keys that it covers. Where there is no order: the keys of held rows that it covers, instead of a range.
    pub(super) order_keys: Vec<String>,
    /// How many signals of an ordered type may have been sent under it.
    pub(super) in_flight: usize,
    pub(super) takeovers: u32,
    pub(super) expires_in: i64,
}

/// What is already spoken for when a claim is taken.
#[derive(Debug, Default)]
pub(super) struct RecordedClaims {
    pub(super) claims: Vec<ClaimRecord>,
    /// When the last of those that are due now became due, by the database's clock.
    pub(super) last_due: Option<i64>,
    /// When the first of those that are not due yet is due, in ms from now.
    pub(super) next_due: Option<i64>,
    /// Whether there are dead letters.
    pub(super) dead: bool,
    /// When the next deletion of a row that was sent is tried again, in ms from now.
    pub(super) undeleted: Option<i64>,
    /// The database's clock when all this was read. It goes on while rows are read: what is due must
    /// not change between one row and the next.
    pub(super) now: Option<i64>,
}

impl ClaimRecord {
    pub(super) fn new(from: Option<String>, to: Option<String>, order_keys: Vec<String>) -> Self {
        Self {
            token: token(),
            serial: 0,
            seed: Seed::random(),
            mine: true,
            released: false,
            from,
            to,
            settled: Vec::new(),
            order_keys,
            in_flight: 0,
            takeovers: 0,
            expires_in: 0,
        }
    }

    pub(super) fn read(row: &[Cell], owner: &str) -> Self {
        let settled = row[11].as_deref().and_then(|text| serde_json::from_str(text).ok());
        let order_keys = serde_json::from_str(row[5].as_deref().unwrap_or_default());
        Self {
            token: row[1].clone().unwrap_or_default(),
            seed: Seed::from_text(row[8].as_deref().unwrap_or_default()),
            mine: row[2].as_deref() == Some(owner),
            released: row[2].as_deref() == Some(""),
            from: row[3].clone(),
            to: row[4].clone(),
            settled: settled.unwrap_or_default(),
            order_keys: order_keys.unwrap_or_default(),
            in_flight: number(&row[9]),
            serial: number(&row[10]),
            takeovers: number(&row[6]),
            expires_in: number(&row[7]),
        }
    }

    /// Whether this process holds it, and does not work on it any more: something has failed.
    pub(super) fn is_left_behind(&self) -> bool {
        self.mine && !Live::is(&self.token)
    }

    /// Whether it can be taken over.
    pub(super) fn is_free(&self) -> bool {
        self.expires_in <= 0 || self.is_left_behind()
    }

    /// The same claim as its next holder has it. The ids of its signals stay as they are.
    pub(super) fn taken_over(self) -> Self {
        let released = self.released || self.is_left_behind();
        let takeovers = if released && self.takeovers == 0 { 0 } else { self.takeovers + 1 };
        let token = if is_broken(Rule::TakeoverFences) { self.token } else { token() };
        let seed = if is_broken(Rule::SeedInherited) { Seed::random() } else { self.seed };
        Self { token, seed, mine: true, released: false, takeovers, ..self }
    }
}

/// A new name for a claim.
pub(super) fn token() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

impl RecordedClaims {
    /// The serial number of the next claim.
    pub(super) fn next_serial(&self) -> i64 {
        self.claims.iter().map(|claim| claim.serial + 1).max().unwrap_or_default()
    }

    /// Whether any row is held.
    pub(super) fn holds(&self) -> bool {
        self.any_due() || self.next_due.is_some() || self.dead || self.undeleted.is_some()
    }

    /// Whether the next attempt of any signal is due.
    pub(super) fn any_due(&self) -> bool {
        self.last_due.is_some()
    }

    /// Nothing that is to be read with these is held. Returns what was known of it.
    pub(super) fn forget_holds(&mut self) -> Self {
        let claims = std::mem::take(&mut self.claims);
        std::mem::replace(self, Self { claims, now: self.now, ..Self::default() })
    }

    /// Some signals may be held, and nothing is claimed.
    pub(super) fn held() -> Self {
        Self { last_due: Some(0), next_due: Some(1), dead: true, ..Self::default() }
    }
}
