//! Settling: one durable transaction deletes or holds what a settlement names.
//!
//! Must change nothing unless the claim is still ours: each settle proves it. Next: `standing`, what is still there;
//! `removal`, which deletes it; `hold`, what stays.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::database::{Purpose, Row};
use super::hold::Entry;
use super::standing::Standing;
use super::trial::{Rule, is_broken};
use super::{Cause, Error, Worker};
use signalbus_core::settlement::Settlement;

/// How many keys one statement names at most (SQLite and MySQL bound the number of arguments).
pub(super) const KEYS_PER_STATEMENT: usize = 1000;

/// The result of a settle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The settlement was applied.
    Done(Deletions),
    /// The claim had expired and belongs to another relay now: nothing was changed.
    Fenced,
}

/// What became of the rows to delete. Those that were gone are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletions {
    pub deleted: u64,
    /// Were replaced since they were read: they stay, to be sent as they are now.
    pub changed: usize,
    /// Are locked by somebody: they are held as sent, and their deletion is tried again.
    pub locked: usize,
    /// The database refuses to delete them, or does not do it: likewise.
    pub refused: usize,
    /// Why the last one of the last two is not deleted.
    pub reason: Option<String>,
}

impl Deletions {
    fn add(&mut self, more: Self) {
        self.deleted += more.deleted;
        self.changed += more.changed;
        self.locked += more.locked;
        self.refused += more.refused;
        self.reason = more.reason.or(self.reason.take());
    }
}

/// What one transaction of a settle changes.
#[derive(Clone, Copy)]
struct Changes<'a> {
    proof: Proof,
    delete: &'a [usize],
    /// What is deferred and buried.
    hold: Option<&'a Settlement>,
    /// Rows that resisted an earlier transaction, and why.
    resisting: &'a [(usize, String)],
    /// Whether to look for locked rows first.
    skip_locked: bool,
}

/// How a transaction proves that its claim stands.
#[derive(Clone, Copy)]
enum Proof {
    /// It ends the claim.
    End {
        settled: usize,
        leftovers: bool,
    },
    /// It records that the batch is settled as a whole.
    Track,
    Share,
    /// There is no claim: deletes what still is on record as sent.
    Sent,
}

/// How many rows that cannot be deleted are found one by one while none can, and how long it may take to find them.
const REFUSED: usize = 16;
const PATIENCE: Duration = Duration::from_secs(3);

const SUPPRESSED: &str = "the database left it where it is: a trigger, a rule or a policy keeps rows from being deleted";

const MARKED: &str = "it was marked, and its view still shows it: `on_sent` must make the view leave it out";

/// How many settles look closer after one that found changed rows.
const WARY: u32 = 100;

impl Worker<'_> {
    /// Applies a settlement to its batch, and ends the claim with the last of its batches.
    ///
    /// Rows that the database does not let go are held as sent.
    ///
    /// # Errors
    /// The database's error; what was not settled can be settled again.
    pub async fn settle(&mut self, batch: &Batch, settlement: &Settlement) -> Result<Settled, Error> {
        let count = |settlement: &Settlement| settlement.delete.len() + settlement.defer.len() + settlement.bury.len();
        let mut settlement = settlement;
        let whole;
        let (recurring, ordered) = (self.lane.table.recurring, self.lane.table.ordered());
        let waits = ordered && settlement.defer.len() + settlement.bury.len() > 0;
        if (recurring || waits) && (1..batch.signals.len()).contains(&count(settlement)) {
            // A claim that is kept for some rows would be read again, and so would equal rows with the keys of the others; and
            // it would not be kept for as long as a row waits for another one. Those that are left may have been sent.
            whole = batch.with_rest_held(settlement, ordered);
            settlement = &whole;
        }
        let count = count(settlement);
        let leftovers = count < batch.signals.len();
        // If it is kept for what was left of another batch, it has to record first that this one is settled.
        let kept = batch.claim.tracked && batch.claim.has_leftovers();
        let ends = batch.claim.ends_with_this() && !kept;
        let proof = match (ends, leftovers) {
            (true, leftovers) => Proof::End { settled: count + batch.claim.settled_signals(), leftovers },
            (false, false) if batch.claim.tracked => Proof::Track,
            (false, _) => Proof::Share,
        };
        let at_once = !ends && !leftovers && settlement.delete.len() == count;
        let settled = self.settle_with(batch, settlement, proof, at_once).await;
        let settled = self.ended(settled).await;
        let tracking = self.tracking.take();
        let settled = settled?;
        if settled == Settled::Fenced {
            self.lane.lost(&batch.claim).await;
        } else if batch.claim.settled(batch.part, count, leftovers) && !ends {
            drop(tracking);
            self.end(&batch.claim).await?;
        }
        Ok(settled)
    }

    async fn settle_with(
        &mut self,
        batch: &Batch,
        settlement: &Settlement,
        proof: Proof,
        at_once: bool,
    ) -> Result<Settled, Error> {
        let mut deletions = Deletions::default();
        let mut resisted = None;
        if at_once {
            match self.delete_at_once(batch, &settlement.delete).await {
                Ok(deleted) if deleted == settlement.delete.len() as u64 => {
                    return Ok(Settled::Done(Deletions { deleted, ..deletions }));
                }
                Ok(deleted) => deletions.deleted = deleted,
                Err(error) if error.is_resistance() => resisted = Some(error),
                Err(error) => return Err(error),
            }
        }
        let delete = &settlement.delete[..];
        let changes = Changes { proof, delete, hold: Some(settlement), resisting: &[], skip_locked: false };
        if resisted.is_none() {
            match self.apply(batch, &changes).await {
                Err(error) if error.is_resistance() && !delete.is_empty() => {}
                Ok(Some(more)) => {
                    if at_once && more.changed > 0 {
                        // A trigger may have changed them instead of letting them go.
                        self.lane.wary.store(WARY, Relaxed);
                    }
                    deletions.add(more);
                    return Ok(Settled::Done(deletions));
                }
                Ok(None) => return Ok(Settled::Fenced),
                Err(error) => return Err(error),
            }
        }
        let piece = Changes { proof: Proof::Share, hold: None, skip_locked: true, ..changes };
        let Some((more, resisting)) = self.insist(batch, &piece).await? else { return Ok(Settled::Fenced) };
        deletions.add(more);
        let rest = Changes { delete: &[], resisting: &resisting, ..changes };
        match self.apply(batch, &rest).await? {
            Some(more) => deletions.add(more),
            None => return Ok(Settled::Fenced),
        }
        Ok(Settled::Done(deletions))
    }

    /// Deletes piece by piece, each in a transaction of its own, and finds the rows that the database does not let
    /// go. (Savepoints would not do: a deferred constraint speaks at the commit.) Returns `None` if the claim is lost.
    async fn insist(&mut self, batch: &Batch, changes: &Changes<'_>) -> Result<Option<(Deletions, Vec<(usize, String)>)>, Error> {
        let begun = Instant::now();
        let mut deletions = Deletions::default();
        let mut resisting: Vec<(usize, String)> = Vec::new();
        let mut pieces = vec![changes.delete];
        while let Some(piece) = pieces.pop() {
            match self.apply(batch, &Changes { delete: piece, ..*changes }).await {
                Ok(Some(more)) => deletions.add(more),
                Ok(None) => return Ok(None),
                Err(error) if error.is_resistance() => {
                    let one_cause = deletions.deleted == 0 && resisting.len() >= REFUSED;
                    let spent = one_cause || begun.elapsed() > PATIENCE;
                    if piece.len() > 1 && !spent {
                        let (first, second) = piece.split_at(piece.len() / 2);
                        pieces.extend([second, first]);
                        continue;
                    }
                    let count = if error.is_locked() { &mut deletions.locked } else { &mut deletions.refused };
                    *count += piece.len();
                    let reason = error.to_string();
                    resisting.extend(piece.iter().map(|&n| (n, reason.clone())));
                    deletions.reason = Some(reason);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some((deletions, resisting)))
    }

    /// Tries again to delete what is on record as sent. What was changed meanwhile is sent as it is now.
    pub(super) async fn delete_sent(&mut self) -> Result<(), Error> {
        let lane = self.lane;
        let sent = std::mem::take(&mut self.undeleted);
        if sent.is_empty() {
            return Ok(());
        }
        let keys: Vec<&str> = sent.iter().map(|sent| sent.key.as_str()).collect();
        self.session.begin(Purpose::Read).await?;
        let rows = self.session.signals(lane.reread(&keys, ""), lane.table.clone(), lane.key_extras(), None).await?;
        self.session.commit().await?;
        let mut rows: HashMap<String, Row> = rows.all().into_iter().map(|row| (row.key.clone(), row)).collect();
        let mut lost = Vec::new();
        let mut found = Vec::new();
        for sent in sent {
            match rows.remove(&sent.key).filter(|row| sent.hold.holds(&lane.table, &row.values)) {
                Some(row) => found.push((row, sent)),
                None => lost.push(sent.key),
            }
        }
        if !lost.is_empty() {
            self.session.begin(Purpose::Write).await?;
            self.forget_keys(&lost).await?;
            self.session.commit().await?;
            lane.rescan().await;
        }
        // What was in the way last time may be so again.
        fastrand::shuffle(&mut found);
        let batch = Batch::sent(found);
        let all: Vec<usize> = (0..batch.signals.len()).collect();
        let changes = Changes { proof: Proof::Sent, delete: &all, hold: None, resisting: &[], skip_locked: true };
        if let Some((_, resisting)) = self.insist(&batch, &changes).await?
            && !resisting.is_empty()
        {
            self.apply(&batch, &Changes { delete: &[], resisting: &resisting, ..changes }).await?;
        }
        Ok(())
    }

    /// Makes changes in one transaction. Returns `None` if the claim is lost.
    async fn apply(&mut self, batch: &Batch, changes: &Changes<'_>) -> Result<Option<Deletions>, Error> {
        // (Who waits for this has the only connection that writes, maybe.)
        self.tracking = None;
        self.session.begin(Purpose::Settle).await?;
        let applied = match changes.proof {
            Proof::Sent => self.apply_recorded(batch, changes).await,
            _ => self.apply_within(batch, changes).await,
        };
        match applied {
            Ok(Some(deletions)) => Ok(Some(deletions)),
            Ok(None) => self.session.rollback().await.map(|()| None),
            Err(error) => {
                let _ = self.session.rollback().await;
                Err(error)
            }
        }
    }

    /// Makes changes to what still is on record as sent: what somebody has found gone or changed is none of ours any more.
    async fn apply_recorded(&mut self, batch: &Batch, changes: &Changes<'_>) -> Result<Option<Deletions>, Error> {
        let named: Vec<usize> = changes.delete.iter().copied().chain(changes.resisting.iter().map(|(n, _)| *n)).collect();
        let recorded = self.recorded(batch, &named).await?;
        let delete: Vec<usize> = changes.delete.iter().copied().filter(|n| recorded.contains(n)).collect();
        let resisting: Vec<_> = changes.resisting.iter().filter(|(n, _)| recorded.contains(n)).cloned().collect();
        self.apply_within(batch, &Changes { delete: &delete, resisting: &resisting, ..*changes }).await
    }

    async fn apply_within(&mut self, batch: &Batch, changes: &Changes<'_>) -> Result<Option<Deletions>, Error> {
        // (Whoever records what is settled keeps others from it until the commit.)
        let tracks = matches!(changes.proof, Proof::Track);
        if !tracks && !self.prove(batch, changes.proof).await? {
            return Ok(None);
        }
        let lane = self.lane;
        let Standing { here, locked, replaced } = self.standing(batch, changes.delete, changes.skip_locked).await?;
        let held: Vec<usize> = changes.delete.iter().copied().filter(|&n| batch.marks[n].held).collect();
        let nothing_held = changes.hold.is_none_or(|settlement| settlement.bury.is_empty() && settlement.defer.is_empty());
        let last = nothing_held && held.is_empty() && locked.is_empty() && changes.resisting.is_empty();
        if last && !tracks && lane.is_plain() && !lane.may_resist() && !here.is_empty() && here.len() <= KEYS_PER_STATEMENT {
            let deleted = self.session.execute_and_commit(lane.delete_rows(batch, &here)).await?;
            return Ok(Some(Deletions { deleted, changed: replaced.len(), ..Deletions::default() }));
        }
        let deleted = self.delete_rows(batch, &here).await?;
        let mut deletions = Deletions { deleted, changed: replaced.len(), ..Deletions::default() };
        let mut entries = Vec::new();
        let marks = !lane.table.mark.is_empty();
        if (deletions.deleted < here.len() as u64 || marks) && !is_broken(Rule::ResistanceHeld) {
            if !lane.table.children.is_empty() {
                // They stay with what stays.
                return Err(Error::Refused { message: SUPPRESSED.into(), cause: Cause::Final });
            }
            let (suppressed, changed) = self.suppressed(batch, &here).await?;
            deletions.changed += changed;
            deletions.refused = suppressed.len();
            let reason = if marks { MARKED } else { SUPPRESSED };
            if marks {
                deletions.deleted = (here.len() - suppressed.len() - changed) as u64;
            }
            let entry = |(n, values)| Entry::sent(n, &batch.marks[n], reason, Some(values));
            entries.extend(suppressed.into_iter().map(entry));
        }
        deletions.locked = locked.len();
        entries.extend(locked.iter().map(|&n| Entry::locked(n, &batch.marks[n])));
        deletions.reason = entries.last().map(|entry| entry.reason.to_owned());
        entries.extend(changes.resisting.iter().map(|(n, reason)| Entry::sent(*n, &batch.marks[*n], reason, None)));
        if let Some(settlement) = changes.hold {
            entries.extend(Entry::of(settlement));
        }
        self.forget(batch, &held).await?;
        deletions.changed += self.hold(batch, entries).await?;
        if tracks && !self.prove(batch, changes.proof).await? {
            return Ok(None);
        }
        self.session.commit().await?;
        Ok(Some(deletions))
    }

    /// Proves that a claim stands, and keeps others from taking it over until the transaction ends.
    async fn prove(&mut self, batch: &Batch, proof: Proof) -> Result<bool, Error> {
        let lane = self.lane;
        let share = lane.database.dialect().share();
        let proof = match proof {
            Proof::Sent => return Ok(true),
            Proof::End { settled, leftovers } => lane.end_claim(&batch.claim, settled, leftovers),
            Proof::Track => self.track(batch).await,
            Proof::Share if share.is_empty() => lane.extend(&batch.claim),
            Proof::Share => {
                let text = format!("SELECT token FROM signalbus_claim WHERE token = ?{share}");
                let found = self.session.rows(lane.statement(&text, &[batch.claim.token().into()])).await?;
                return Ok(found.len() == 1 || is_broken(Rule::Fence));
            }
        };
        Ok(self.session.execute(proof).await? == 1 || is_broken(Rule::Fence))
    }
}
