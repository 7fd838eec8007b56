//! Claims of types with an order: what comes first, from the floor of the scan on.
//!
//! An ordered type is scanned from its floor: whatever is not sent lies behind the first row of some claim. A signal
//! that is claimed or deferred holds back every signal with the same order key; without `order_key`, every signal. When
//! one is due again, and every few seconds, the scan starts over. Next: `window`, which reads;
//! `place`, a place in the order.

use std::collections::HashSet;
use std::time::Instant;

use super::active::RecordedClaims;
use super::claim::Taken;
use super::database::{Fetched, number};
use super::place::Place;
use super::rescan::SCAN_LIMIT;
use super::scan::Scan;
use super::window::Window;
use super::{Error, SignalTable, Worker};
use signalbus_core::signal::Value;

/// Among how many batches a claim first looks for order keys that no claim has.
const NEAR: usize = 4;
/// A search for order keys that no claim has goes through the whole table if there are none, and takes no more than one
/// part in so many of the time.
const BARREN: u32 = 20;
/// A claim of several batches has at most so many rows, and if as many order keys are claimed, one takes one batch: some
/// databases bound the arguments of a statement.
const MANY: usize = 10_000;

impl Worker<'_> {
    pub(super) async fn take_ordered(
        &mut self,
        scan: &mut Scan,
        active: &RecordedClaims,
        limit: usize,
        boundary: Option<&str>,
    ) -> Result<Option<Taken>, Error> {
        let blocked = !active.claims.is_empty() || active.next_due.is_some();
        if self.lane.table.order_key.is_empty() && blocked {
            return Ok(None);
        }
        // What is due again lies behind the floor, and so does what was behind a dead letter.
        let due = active.last_due > scan.last_due;
        scan.last_due = active.last_due.max(scan.last_due);
        let freed = std::mem::replace(&mut scan.dead, active.dead) && self.lane.table.holds_dead;
        // Something may have committed late.
        let late = scan.since.is_none_or(|since| since.elapsed() > SCAN_LIMIT);
        scan.barren.take_if(|_| late);
        if due || freed || late {
            scan.restart();
        }
        let rows_per_lookup = self.lane.database.dialect().set_rows_per_lookup();
        if late && active.holds() && rows_per_lookup > 0 {
            scan.held = self.count_held(rows_per_lookup * MANY + 1).await?;
        }
        let claimed: HashSet<&str> = active.claims.iter().flat_map(|claim| &claim.order_keys).map(String::as_str).collect();
        let still = |key: &String| claimed.contains(key.as_str());
        if scan.barren.as_ref().is_some_and(|(keys, until)| Instant::now() < *until && keys.iter().all(still)) {
            return Ok(Some(Taken::Nothing(scan.nothing(active, true))));
        }
        // (A claim that is kept for some rows would be read again, and so would equal rows with the keys of the others.)
        let single = self.lane.table.recurring || claimed.len() > MANY;
        let limit = if single { limit } else { self.covered(limit) };
        loop {
            let begun = Instant::now();
            let few_held = self.lane.few_held(scan, limit);
            let window = Window { until: boundary, limit, floor: scan.floor.as_ref(), few_held, ..Window::default() };
            if !claimed.is_empty() && scan.floor.is_some() {
                // To fill a batch with what few order keys have, would take all of the table, too.
                let rows = self.read(&Window { among: Some(NEAR * limit), ..window }, active).await?;
                if rows.len > 0 {
                    return self.claimed_in_order(scan, active, rows);
                }
            }
            let rows = self.read(&window, active).await?;
            if !claimed.is_empty() {
                let pause = (begun.elapsed() * BARREN).min(SCAN_LIMIT);
                let keys = || claimed.iter().map(|&key| key.to_owned()).collect();
                scan.barren = (rows.len == 0).then(|| (keys(), Instant::now() + pause));
            }
            if rows.len == 0 && scan.floor.is_some() && active.claims.is_empty() {
                scan.restart();
                continue;
            }
            if rows.len == 0 {
                return Ok(None);
            }
            return self.claimed_in_order(scan, active, rows);
        }
    }

    /// How many rows a claim of several batches has.
    pub(super) fn covered(&self, limit: usize) -> usize {
        limit * self.ahead.min(MANY / limit).max(1)
    }

    /// How many rows are held, as far as it matters.
    async fn count_held(&mut self, most: usize) -> Result<usize, Error> {
        let text = format!("SELECT count(*) FROM (SELECT 1 AS held FROM signalbus_hold WHERE signal_type = ? LIMIT {most}) h");
        let args = [self.lane.signal_type.name.as_str().into()];
        let rows = self.session.rows(self.lane.statement(&text, &args)).await?;
        Ok(rows.first().map_or(0, |row| number(&row[0])))
    }

    fn claimed_in_order(&self, scan: &mut Scan, active: &RecordedClaims, rows: Fetched) -> Result<Option<Taken>, Error> {
        let place = self.lane.place(&rows);
        scan.floor = place.clone().and_then(|place| self.lane.floor(active, place));
        let text = place.map(|place| place.to_text());
        self.claimed(active, text.as_deref(), rows, false)
    }
}

impl SignalTable {
    /// Whether few rows are held, compared with those that are read.
    pub(super) fn few_held(&self, scan: &Scan, limit: usize) -> bool {
        (1..=self.database.dialect().set_rows_per_lookup() * limit).contains(&scan.held)
    }

    /// The place of the first of these rows.
    fn place(&self, rows: &Fetched) -> Option<Place> {
        self.place_of(&(rows.decode)(0)?.values)
    }

    /// The place of a row with these values.
    pub(super) fn place_of(&self, values: &[Value]) -> Option<Place> {
        let column = self.table.order_by.first()?.column;
        Place::of(&values[column], self.database.dialect().compares_bytes())
    }

    /// The place before which nothing is left to be claimed, once a claim begins at `place`.
    pub(super) fn floor(&self, active: &RecordedClaims, place: Place) -> Option<Place> {
        let descending = self.table.order_by.first()?.descending;
        let mut places = active.claims.iter().map(|claim| claim.from.as_deref().and_then(Place::from_text));
        places.try_fold(place, |floor, place| Some(floor.first(place?, descending)))
    }
}
