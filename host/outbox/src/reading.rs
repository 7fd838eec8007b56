//! Reading batches from the claim that is open: every worker reads, each a part of its own.
//!
//! Must never read from a claim that another relay may have by now. Next: `open`, what the claim is; `claim`, which
//! opens it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::MutexGuard;

use super::active::{Range, RecordedClaims};
use super::batch::Batch;
use super::claim::Taking;
use super::database::{Purpose, Row};
use super::open::{HeldClaim, OpenClaim};
use super::scan::Scan;
use super::window::Window;
use super::{Error, SignalTable, Worker};

impl Worker<'_> {
    /// Opens a claim, from which every worker reads.
    pub(super) async fn open(&mut self, mut scan: MutexGuard<'_, Scan>, claim: OpenClaim) -> Result<(), Error> {
        let before = scan.open.replace(claim);
        if before.is_some() {
            scan.rescans.want();
        }
        drop(scan);
        // It was opened for another boundary.
        match before.filter(|before| before.claim.close()) {
            Some(before) => self.end(&before.claim).await,
            None => Ok(()),
        }
    }

    /// Reads the next batch of the open claim, if there is one. Workers read at the same time, each a part of its own.
    pub(super) async fn read_on(&mut self, limit: usize, boundary: Option<&str>) -> Result<Option<Batch>, Error> {
        let mut scan = self.lane.scan.lock().await;
        let Some(open) = scan.open.as_mut().filter(|open| open.boundary.as_deref() == boundary) else { return Ok(None) };
        let (claim, late) = (open.claim.clone(), open.late);
        if claim.is_doubtful() && !self.renew_claim(&claim).await? {
            // Another relay has it now.
            scan.open = None;
            scan.restart();
            return Ok(None);
        }
        let Some(range) = open.parts.pop_front() else { return Ok(None) };
        let active = open.active.clone();
        let part = claim.handed_out(range.clone());
        scan.pace.read();
        if scan.open.take_if(|open| open.parts.is_empty()).is_some() {
            claim.close();
        }
        drop(scan);
        let window = Window { after: range.0.as_deref(), until: Some(&range.1), limit, ..Window::default() };
        let (rows, full) = match self.read_part(&window, &active).await {
            Ok(rows) => rows,
            Err(error) => {
                // It is read by whoever takes the claim up again.
                claim.settled(part, 0, true);
                return Err(error);
            }
        };
        if rows.is_empty() {
            if claim.settled(part, 0, false) {
                self.end(&claim).await?;
            }
            return Ok(None);
        }
        if full && rows.last().is_some_and(|row| row.key != range.1) {
            // Rows have appeared in the part, or they are large: the last ones are left for another claim.
            self.lane.scan.lock().await.restart();
        }
        Ok(Some(Batch { late, part, full, ..Batch::of(claim, rows, self.lane) }))
    }

    /// Reads the rows of a part, and whether there may be more of them.
    async fn read_part(&mut self, window: &Window<'_>, active: &RecordedClaims) -> Result<(Vec<Row>, bool), Error> {
        let mut limit = window.limit;
        loop {
            self.session.begin(Purpose::Read).await?;
            let rows = self.read(&Window { limit, ..*window }, active).await?;
            self.session.commit().await?;
            let (found, full, mut rows) = (rows.len, rows.is_full(limit), rows.all());
            if rows.len() < window.limit && rows.len() < found && found == limit && limit < window.widest() {
                // Rows of which nothing can be recorded are in the way.
                limit *= 16;
                continue;
            }
            rows.truncate(window.limit);
            return Ok((rows, full));
        }
    }

    /// Ends the claim that is being read, since nobody will go on reading it.
    ///
    /// # Errors
    /// The database's error; the claim expires.
    pub async fn close(&mut self) -> Result<(), Error> {
        let mut scan = self.lane.scan.lock().await;
        let open = scan.open.take();
        if open.is_some() {
            scan.rescans.want();
        }
        drop(scan);
        match open {
            Some(open) if open.claim.close() => self.end(&open.claim).await,
            _ => Ok(()),
        }
    }
}

impl SignalTable {
    /// A claim from which batches are to be read.
    pub(super) fn opened(
        &self,
        taking: Taking,
        active: RecordedClaims,
        parts: VecDeque<Range>,
        boundary: Option<&str>,
    ) -> OpenClaim {
        let Taking { claim, live, late, .. } = taking;
        let claim = HeldClaim::open(live, &self.holding, claim.seed, self.table.recurring);
        OpenClaim { claim, parts, active: Arc::new(active), late, boundary: boundary.map(str::to_owned) }
    }
}
