//! Takeovers: claims whose owner did not come back, or has released them.
//!
//! The ids of their signals stay as they are. Next: `claim`, which looks for them first.

use super::active::{ClaimRecord, RecordedClaims};
use super::claim::{Taken, Taking};
use super::open::Rest;
use super::window::Window;
use super::{Error, LEASE, Worker, millis};

/// What became of a claim that had expired.
pub(super) enum TakenOver {
    Rows(Box<Taken>),
    /// Its rows are gone.
    Empty,
    /// Its owner has settled or renewed it after all.
    Changed,
}

impl Worker<'_> {
    /// Takes a claim whose owner did not come back, or has released it: its signals keep their ids.
    ///
    /// The second time one signal by itself, so that the one that kills its relay is found.
    pub(super) async fn take_over(
        &mut self,
        found: ClaimRecord,
        active: &mut RecordedClaims,
        limit: usize,
    ) -> Result<TakenOver, Error> {
        let left_behind = found.is_left_behind();
        let (alone, expired, old) = (found.takeovers > 0, !found.released && !left_behind, found.token.clone());
        let suspect = expired && found.takeovers > 1;
        let claim = found.taken_over();
        // Its owner may have settled or renewed it after all; whoever changes the claim first has it.
        let text = "UPDATE signalbus_claim SET token = ?, owner = ?, takeovers = ?, expires_at = ? + NOW \
             WHERE token = ? AND expires_at <= NOW + ?";
        let args = [
            claim.token.as_str().into(),
            self.owner.as_str().into(),
            claim.takeovers.into(),
            millis(LEASE).into(),
            old.as_str().into(),
            if left_behind { millis(LEASE * 10) } else { 0 }.into(),
        ];
        if self.session.execute(self.lane.timed(text, &args)).await? != 1 {
            return Ok(TakenOver::Changed);
        }
        let ordered = self.lane.table.ordered();
        let window = Window {
            after: claim.from.as_deref().filter(|_| !ordered),
            until: claim.to.as_deref(),
            only: (ordered && !claim.order_keys.is_empty()).then_some(&claim.order_keys[..]),
            keys: (!ordered && !claim.order_keys.is_empty()).then_some(&claim.order_keys[..]),
            limit: if alone { 1 } else { limit },
            ..Window::default()
        };
        // A younger claim may cover the same range, but not these rows.
        let (younger, older) = std::mem::take(&mut active.claims).into_iter().partition(|other| other.serial > claim.serial);
        active.claims = older;
        let settled = claim.settled.iter().cloned().map(|(from, to)| ClaimRecord::new(from, Some(to), Vec::new()));
        active.claims.extend(settled);
        let rows = self.read(&window, active).await;
        active.claims.truncate(active.claims.len() - claim.settled.len());
        active.claims.extend::<Vec<_>>(younger);
        let rows = match window.keys {
            Some(keys) => rows?.only(keys.iter().cloned().collect()),
            None => rows?,
        };
        let Some(last) = rows.last() else {
            let text = "DELETE FROM signalbus_claim WHERE token = ?";
            self.session.execute(self.lane.statement(text, &[claim.token.as_str().into()])).await?;
            return Ok(TakenOver::Empty);
        };
        let more = rows.is_full(window.limit) && claim.to.as_ref() != Some(&last.key);
        // What was deferred in the meantime has its id from there.
        let read = rows.all().iter().filter(|row| row.hold.is_none()).count();
        let in_flight = claim.in_flight.saturating_sub(if ordered || alone { read } else { 0 });
        let rest = Rest { from: Some(last.key).filter(|_| !ordered), in_flight, takeovers: u32::from(alone && in_flight > 0) };
        let rest = (more && (!ordered || in_flight > 0)).then_some(rest);
        let taking = Taking { recorded: true, rest, suspect, taken_over: expired, ..Taking::new(claim, false) };
        Ok(TakenOver::Rows(Box::new(Taken::Rows(taking, rows))))
    }
}
