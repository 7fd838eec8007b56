//! Claims of types without an order: fresh rows by ranges of keys, and what is due again by its keys.
//!
//! Next: `rescan`, which decides when a scan starts over; `window`, which reads.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::active::{ClaimRecord, RecordedClaims};
use super::claim::{Taken, Taking};
use super::rescan::SLICE;
use super::scan::Scan;
use super::settle::KEYS_PER_STATEMENT;
use super::window::Window;
use super::{Error, Worker};

/// What was found behind a place.
enum Found {
    /// What was taken, and its last key.
    Rows(Box<Taken>, String),
    /// Nothing up to this key.
    Nothing(String),
    End,
}

impl Worker<'_> {
    /// Takes turns with what is due again and what is fresh.
    pub(super) async fn take_unordered(
        &mut self,
        scan: &mut Scan,
        active: &mut RecordedClaims,
        limit: usize,
        boundary: Option<&str>,
    ) -> Result<Option<Taken>, Error> {
        let due = active.any_due();
        let due_first = due && !std::mem::take(&mut scan.due_last);
        if scan.position.is_none() {
            scan.rescans.start();
        }
        if due_first && let Some(taken) = self.take_due(active, limit, boundary).await? {
            scan.due_last = true;
            return Ok(Some(taken));
        }
        let taken = self.take_fresh(scan, active, limit, boundary).await?;
        let fresh = matches!(taken, Some(Taken::Rows(..) | Taken::Range(..)));
        if due
            && !due_first
            && !fresh
            && let Some(taken) = self.take_due(active, limit, boundary).await?
        {
            return Ok(Some(taken));
        }
        Ok(taken)
    }

    /// Takes rows whose next attempt is due, by their keys: they may be anywhere.
    async fn take_due(&mut self, active: &RecordedClaims, limit: usize, boundary: Option<&str>) -> Result<Option<Taken>, Error> {
        let busy: HashSet<&str> = active.claims.iter().flat_map(|claim| &claim.order_keys).map(String::as_str).collect();
        let most = limit.min(KEYS_PER_STATEMENT);
        let mut skipped = 0;
        loop {
            let text = format!(
                "SELECT signal_key FROM signalbus_hold WHERE signal_type = ? AND state = 'retry' AND due_at <= ? \
                 ORDER BY due_at, id LIMIT {most} OFFSET {skipped}"
            );
            let args = [self.lane.signal_type.name.as_str().into(), active.now.unwrap_or_default().into()];
            let keys = self.session.rows(self.lane.statement(&text, &args)).await?;
            if keys.is_empty() {
                return Ok(None);
            }
            skipped += keys.len();
            let keys: Vec<String> = keys.into_iter().flatten().flatten().filter(|key| !busy.contains(key.as_str())).collect();
            if keys.is_empty() {
                continue;
            }
            let window = Window { keys: Some(&keys), until: boundary, limit: keys.len(), ..Window::default() };
            let rows = self.read(&window, active).await?.only(keys.iter().cloned().collect());
            let found: Vec<String> = rows.all().into_iter().map(|row| row.key).collect();
            if boundary.is_none() && !rows.cut {
                // Somebody else has deleted the others.
                let here: HashSet<&String> = found.iter().collect();
                let gone: Vec<&String> = keys.iter().filter(|key| !here.contains(key)).collect();
                self.forget_keys(&gone).await?;
            }
            match found.last().cloned() {
                Some(last) => {
                    let claim = ClaimRecord::new(None, Some(last), found);
                    let claim = ClaimRecord { serial: active.next_serial(), in_flight: rows.len, ..claim };
                    return Ok(Some(Taken::Rows(Taking::new(claim, false), rows)));
                }
                None if boundary.is_none() => return Ok(Some(Taken::Again)),
                None => {}
            }
        }
    }

    async fn take_fresh(
        &mut self,
        scan: &mut Scan,
        active: &mut RecordedClaims,
        limit: usize,
        boundary: Option<&str>,
    ) -> Result<Option<Taken>, Error> {
        let due = active.any_due();
        let batches = if due { 1 } else { scan.pace.next(Instant::now()) };
        if scan.position.is_some() && scan.rescans.is_due() {
            scan.rescans.begin(scan.position.clone());
        }
        let mut ended = false;
        loop {
            let behind = self.take_behind(scan, active, limit, batches).await?;
            if let Some(Found::Rows(taken, _)) = behind {
                return Ok(Some(scan.read_from(*taken)));
            }
            let again = matches!(behind, Some(Found::Nothing(_)));
            if ended && !again {
                return Ok(None);
            }
            let begun = Instant::now();
            let after = scan.position.take();
            let window = Window { after: after.as_deref(), until: boundary, limit, ..Window::default() };
            match self.take_slice(&window, &mut scan.slice, active, batches, false).await? {
                Found::Rows(taken, key) => {
                    scan.position = Some(key);
                    return Ok(Some(scan.read_from(*taken)));
                }
                Found::Nothing(key) => {
                    scan.position = Some(key);
                    scan.rescans.passed(begun.elapsed());
                    return Ok(Some(Taken::Again));
                }
                Found::End => scan.position = after,
            }
            scan.rescans.passed_once();
            if again {
                return Ok(Some(Taken::Again));
            }
            // What comes next comes, as a rule, behind what there was; but not always.
            if scan.position.is_none() || !scan.rescans.may_begin() || scan.rescans.has_seen(self.asked) {
                return Ok(None);
            }
            scan.rescans.begin(scan.position.clone());
            ended = true;
        }
    }

    /// Takes what the present pass over the table finds behind the position; `None` if there is none.
    async fn take_behind(
        &mut self,
        scan: &mut Scan,
        active: &mut RecordedClaims,
        limit: usize,
        batches: usize,
    ) -> Result<Option<Found>, Error> {
        let begun = Instant::now();
        let Some(pass) = scan.rescans.current() else { return Ok(None) };
        let window = Window { after: pass.at.as_deref(), until: pass.until.as_deref(), limit, ..Window::default() };
        // Mostly there is nothing, which is found out at once if one batch is looked for.
        let batches = if pass.at.is_some() { batches } else { 1 };
        let found = self.take_slice(&window, &mut None, active, batches, true).await?;
        match &found {
            Found::Rows(_, key) => pass.at = Some(key.clone()),
            Found::Nothing(key) => {
                pass.at = Some(key.clone());
                scan.rescans.spent(begun.elapsed());
            }
            Found::End => scan.rescans.end(),
        }
        Ok(Some(found))
    }

    /// Claims what is due from a window on, of which it looks through a part where rows are held.
    async fn take_slice(
        &mut self,
        window: &Window<'_>,
        slice: &mut Option<String>,
        active: &mut RecordedClaims,
        batches: usize,
        late: bool,
    ) -> Result<Found, Error> {
        if slice.is_none() && active.holds() {
            if let Some(ends) = self.ends_beside_holds(window, active, batches).await?
                && let Some((taken, key)) = self.range(window, ends, active, late)
            {
                return Ok(Found::Rows(Box::new(taken), key));
            }
            let end = self.lane.distant_key(window.after, window.until, SLICE);
            *slice = self.session.rows(end).await?.into_iter().flatten().flatten().next();
        }
        let window = Window { until: slice.as_deref().or(window.until), ..*window };
        Ok(match self.take_window(&window, active, batches, late).await? {
            Some((taken, key)) => Found::Rows(Box::new(taken), key),
            None => slice.take().map_or(Found::End, Found::Nothing),
        })
    }

    /// The last keys of the parts of a range in which no row is held, though others are: to look for a hold of each row would
    /// take longer than all the rest. While the claim stands, nobody else holds rows of it.
    async fn ends_beside_holds(
        &mut self,
        window: &Window<'_>,
        active: &mut RecordedClaims,
        batches: usize,
    ) -> Result<Option<Vec<String>>, Error> {
        if window.after.is_none() {
            return Ok(None);
        }
        let held = active.forget_holds();
        let (ends, _) = self.part_ends(window, batches, active).await?;
        if let Some(until) = ends.last()
            && self.holds_nothing(window.after, until).await?
        {
            return Ok(Some(ends));
        }
        *active = RecordedClaims { claims: std::mem::take(&mut active.claims), ..held };
        Ok(None)
    }

    /// Claims what is due from a window on; the last key of it. The rows are read later, batch by batch.
    ///
    /// Where a key and its content may come back, it must not be read again under the same claim once its row was
    /// settled. So such a claim records which parts of it are settled.
    async fn take_window(
        &mut self,
        window: &Window<'_>,
        active: &mut RecordedClaims,
        batches: usize,
        late: bool,
    ) -> Result<Option<(Taken, String)>, Error> {
        if batches == 1 && self.lane.database.dialect().for_update().is_empty() {
            let rows = self.read(window, active).await?;
            let Some(last) = rows.last() else { return Ok(None) };
            let taken = self.claimed(active, window.after, rows, late)?;
            return Ok(taken.map(|taken| (taken, last.key)));
        }
        let (ends, rows) = self.part_ends(window, batches, active).await?;
        let Some(until) = ends.last() else { return Ok(None) };
        if let Some(rows) = rows.filter(|_| active.holds())
            && self.has_rows(window.after, until, rows).await?
        {
            // While the claim stands, nobody else holds rows of it.
            active.forget_holds();
        }
        Ok(self.range(window, ends, active, late))
    }

    /// A claim of a range, by the last keys of its parts.
    fn range(&self, window: &Window<'_>, ends: Vec<String>, active: &mut RecordedClaims, late: bool) -> Option<(Taken, String)> {
        let until = ends.last()?.clone();
        let after = window.after.map(str::to_owned);
        let starts = std::iter::once(after.clone()).chain(ends.iter().cloned().map(Some));
        let parts = starts.zip(ends.iter().cloned()).collect();
        let claim = ClaimRecord::new(after, Some(until.clone()), Vec::new());
        // At most so many were read and not settled, with what committed late among them.
        let in_flight = 2 * window.limit * self.lane.sessions.load(Relaxed);
        let claim = ClaimRecord { serial: active.next_serial(), in_flight, ..claim };
        Some((Taken::Range(Taking::new(claim, late), std::mem::take(active), parts), until))
    }
}
