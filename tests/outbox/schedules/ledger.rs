//! An account of every version of every row, kept without the outbox: what stood, what was sent with which id, what was
//! answered, what is gone. It knows the guarantees, and nothing of how they are kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What is wrong, in words.
pub type Checked<T = ()> = Result<T, String>;

/// The number of a version.
pub type Version = usize;

/// What a settle has recorded of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    #[default]
    None,
    Retry(u32),
    Dead,
    Sent,
}

/// One committed version of a row.
#[derive(Clone, Debug)]
struct Record {
    key: i64,
    content: String,
    /// Earlier versions that it may be taken for: equal ones, which the application has replaced while they were being
    /// sent, or held.
    kin: Vec<Version>,
    /// The id that it was sent with.
    id: Option<String>,
    /// Its plugin has answered that it was sent.
    answered: bool,
    hold: Hold,
}

/// A batch that a worker has, by what it read.
#[derive(Clone, Debug, Default)]
pub struct Flight {
    pub versions: Vec<Version>,
    attempts: Vec<u32>,
    /// Values of `order_key`, where the type has one.
    pub order_keys: BTreeSet<String>,
    /// Others may have its rows by now: its claim has expired, or is about to end.
    pub yields: bool,
}

/// A signal that was handed out.
pub struct HandedOut {
    pub key: i64,
    pub content: String,
    pub attempt: u32,
    pub order_key: String,
}

#[derive(Clone, Default)]
pub struct Ledger {
    /// Whether the database tells two versions apart even if they are equal.
    pub numbered: bool,
    /// Whether ids are exact. In ordered types they are not yet: a claim that is taken over is bound to a number of rows,
    /// so that rows which appear in front of them take the ids' seed, and the last ones lose it.
    exact: bool,
    records: Vec<Record>,
    standing: BTreeMap<i64, Version>,
    ids: HashMap<String, Version>,
    /// Ids that were used after a backup, under claims that are in it: once it is restored, the claims stand again, and an
    /// equal row has the same id.
    abandoned: HashSet<String>,
    flights: BTreeMap<usize, Flight>,
    /// What a worker that died had, or what it left in place: whoever takes its claim up sends it again.
    left: BTreeSet<Version>,
    /// Dead letters that are being discarded.
    discarded: BTreeSet<Version>,
    /// What stood when the claim that runs now began.
    before: BTreeSet<Version>,
}

impl Ledger {
    pub fn new(numbered: bool, ordered: bool) -> Self {
        Self { numbered, exact: !ordered, ..Self::default() }
    }

    pub fn stands(&self, key: i64) -> bool {
        self.standing.contains_key(&key)
    }

    pub fn keys(&self) -> Vec<i64> {
        self.standing.keys().copied().collect()
    }

    pub fn content(&self, key: i64) -> Option<&str> {
        self.standing.get(&key).map(|&version| self.records[version].content.as_str())
    }

    /// The content of the last row with this key, if there ever was one.
    pub fn last_content(&self, key: i64) -> Option<&str> {
        self.records.iter().rev().find(|record| record.key == key).map(|record| record.content.as_str())
    }

    /// The application has committed a row. `claimed`: some claim is on record.
    pub fn written(&mut self, key: i64, content: &str, claimed: bool) {
        if !claimed {
            self.left.clear();
        }
        let equal = |version: &Version| self.records[*version].key == key && self.records[*version].content == content;
        let unfinished = |version: &Version| {
            let flies = self.flights.values().any(|flight| (claimed || !flight.yields) && flight.versions.contains(version));
            let sending = flies || self.left.contains(version);
            sending && !self.numbered || self.records[*version].hold != Hold::None
        };
        let near: Vec<Version> = (0..self.records.len()).filter(equal).filter(unfinished).collect();
        let far = near.iter().flat_map(|&version| self.records[version].kin.clone());
        let kin = far.chain(near.iter().copied()).collect();
        let content = content.to_owned();
        self.records.push(Record { key, content, kin, id: None, answered: false, hold: Hold::None });
        self.standing.insert(key, self.records.len() - 1);
    }

    /// The application has deleted a row.
    pub fn removed(&mut self, key: i64) {
        self.standing.remove(&key);
    }

    /// Compares with what is in the table: what is missing was deleted by a relay. A trigger puts `mark` into rows that
    /// it keeps from being deleted.
    pub fn observe(&mut self, rows: &BTreeMap<i64, String>, mark: &str) -> Checked {
        for (key, version) in self.standing.clone() {
            let answered = |version: &Version| self.records[*version].answered || self.discarded.contains(version);
            let may_go = std::iter::once(&version).chain(&self.records[version].kin).any(answered);
            match rows.get(&key) {
                Some(content) if *content == self.records[version].content => {}
                Some(content) if content == mark && may_go => self.records[version].content = content.clone(),
                Some(content) => return Err(format!("{} was changed to {content}", self.tell(version))),
                None if may_go => {
                    self.standing.remove(&key);
                    self.left.remove(&version);
                    self.forget_holds(key);
                }
                None => return Err(format!("{} was deleted, and it was never sent", self.tell(version))),
            }
        }
        match rows.keys().find(|key| !self.standing.contains_key(key)) {
            Some(key) => Err(format!("row {key} came back")),
            None => Ok(()),
        }
    }

    /// A worker begins to claim. Returns what stood when the claim began that it interrupts.
    pub fn claims(&mut self) -> BTreeSet<Version> {
        let before = self.standing.values().copied().chain([self.records.len()]).collect();
        std::mem::replace(&mut self.before, before)
    }

    /// The claim that was interrupted goes on.
    pub fn claims_on(&mut self, before: BTreeSet<Version>) {
        self.before = before;
    }

    /// A worker has got a batch.
    pub fn claimed(&mut self, flight: usize, signals: &[HandedOut]) -> Checked {
        let mut batch = Flight::default();
        for signal in signals {
            let version = self.read_version(signal)?;
            self.check_hold(version, signal.attempt)?;
            for other in self.flights.values().filter(|flight| !flight.yields) {
                if other.versions.iter().any(|&version| self.records[version].key == signal.key) {
                    return Err(format!("{} is claimed twice", self.tell(version)));
                }
                if other.order_keys.contains(&signal.order_key) {
                    return Err(format!("order key \"{}\" is claimed twice", signal.order_key));
                }
            }
            batch.versions.push(version);
            batch.attempts.push(signal.attempt);
            batch.order_keys.extend(Some(signal.order_key.clone()).filter(|key| !key.is_empty()));
        }
        self.flights.insert(flight, batch);
        Ok(())
    }

    /// The version that was read: it stood at some time since the claim began.
    fn read_version(&self, signal: &HandedOut) -> Checked<Version> {
        let first = self.before.last().copied().unwrap_or_default();
        let since = (first..self.records.len()).chain(self.before.iter().copied().filter(|&version| version < first));
        let fits = |&version: &Version| {
            let record = &self.records[version];
            record.key == signal.key && record.content == signal.content
        };
        since.filter(fits).max().ok_or_else(|| format!("row {} never stood as {:?}", signal.key, signal.content))
    }

    fn check_hold(&self, version: Version, attempt: u32) -> Checked {
        let record = &self.records[version];
        let charged = |version: Version| if let Hold::Retry(attempts) = self.records[version].hold { attempts } else { 0 };
        match record.hold {
            Hold::Sent => Err(format!("{} is sent again, and it is on record as sent", self.tell(version))),
            Hold::Dead => Err(format!("{} is sent, and it is a dead letter", self.tell(version))),
            Hold::Retry(attempts) if attempt != attempts + 1 => Err(format!("{} is at attempt {attempt}", self.tell(version))),
            Hold::None if attempt != 1 && record.kin.iter().all(|&kin| charged(kin) + 1 != attempt) => {
                Err(format!("{} is at attempt {attempt}, and was never tried", self.tell(version)))
            }
            _ => Ok(()),
        }
    }

    pub fn flight(&self, flight: usize) -> &Flight {
        &self.flights[&flight]
    }

    /// A signal was passed to the bus.
    pub fn sent(&mut self, version: Version, id: &str) -> Checked {
        let first = self.records[version].id.get_or_insert_with(|| id.to_owned()).clone();
        if first != id && self.exact {
            return Err(format!("{} is sent as {id}, too", self.tell(version)));
        }
        let owner = *self.ids.entry(id.to_owned()).or_insert(version);
        let (own, others) = (&self.records[version], &self.records[owner]);
        let returned = self.abandoned.contains(id) && own.key == others.key && own.content == others.content;
        let akin = own.kin.contains(&owner) || others.kin.contains(&version) || returned;
        if owner != version && !akin && (self.exact || self.numbered) {
            return Err(format!("{} has the id of {}", self.tell(version), self.tell(owner)));
        }
        Ok(())
    }

    /// The plugin has answered that it was sent; the settle begins.
    pub fn answered(&mut self, version: Version) {
        self.records[version].answered = true;
    }

    /// Others may have the rows of this batch from now on.
    pub fn yields(&mut self, flight: usize) {
        self.flights.entry(flight).and_modify(|flight| flight.yields = true);
    }

    /// All claims have expired.
    pub fn expired(&mut self) {
        self.flights.values_mut().for_each(|flight| flight.yields = true);
    }

    /// A worker has died, or has lost its claim, which may stand in other hands: nothing was settled.
    pub fn lost(&mut self, flight: usize) {
        let flight = self.flights.remove(&flight).unwrap_or_default();
        self.left.extend(flight.versions);
    }

    /// A batch was settled; what became of each signal, or `None` if nothing was said of it.
    pub fn settled(&mut self, flight: usize, holds: &[Option<Hold>]) {
        let flight = self.flights.remove(&flight).unwrap_or_default();
        for ((&version, hold), attempt) in flight.versions.iter().zip(holds).zip(flight.attempts) {
            let key = self.records[version].key;
            match hold {
                None => {
                    self.left.insert(version);
                    self.records[version].hold = Hold::Retry(attempt - 1);
                }
                // It is gone, or something else is in its place.
                Some(Hold::Sent) if self.standing.get(&key) != Some(&version) => self.forget_holds(key),
                Some(hold) => {
                    self.forget_holds(key);
                    self.records[version].hold = *hold;
                }
            }
        }
    }

    /// Dead letters are about to be discarded, or are not any more.
    pub fn discards(&mut self, keys: &[i64]) {
        let versions = keys.iter().filter_map(|key| self.standing.get(key)).copied();
        self.discarded = versions.filter(|&version| self.may_be_dead(version)).collect();
    }

    /// The dead letters under these keys are tried again (`redriven`), or no dead letters any more.
    pub fn no_more_dead(&mut self, keys: &[i64], redriven: bool) {
        let hold = if redriven { Hold::Retry(0) } else { Hold::None };
        let dead = self.records.iter_mut().filter(|record| keys.contains(&record.key) && record.hold == Hold::Dead);
        dead.for_each(|record| record.hold = hold);
    }

    /// Takes the database, with the relay's tables, back to what it was. What was sent since, was sent: its ids are taken.
    /// `recorded`: there are claims or holds in the backup.
    pub fn restore(&mut self, backup: &Self, recorded: bool) {
        let later = std::mem::replace(self, backup.clone());
        self.ids = later.ids;
        let flights = std::mem::take(&mut self.flights);
        self.left.extend(flights.into_values().flat_map(|flight| flight.versions));
        self.abandoned = later.abandoned;
        if recorded {
            let since = self.ids.keys().filter(|id| !backup.ids.contains_key(*id));
            self.abandoned.extend(since.cloned());
        }
        let gone = later.records.into_iter().skip(self.records.len());
        self.records.extend(gone.map(|record| Record { hold: Hold::None, ..record }));
        if self.numbered {
            // They were written anew.
            self.records.iter_mut().for_each(|record| record.id = None);
        }
    }

    /// Everything that could be sent must have been: only dead letters may stand.
    pub fn nothing_waits(&self) -> Checked {
        match self.standing.values().find(|&&version| !self.may_be_dead(version)) {
            Some(&version) => Err(format!("{} is never sent", self.tell(version))),
            None => Ok(()),
        }
    }

    pub fn nothing_stands(&self) -> Checked {
        self.standing.values().next().map_or(Ok(()), |&version| Err(format!("{} is never sent", self.tell(version))))
    }

    fn may_be_dead(&self, version: Version) -> bool {
        let mut versions = std::iter::once(&version).chain(&self.records[version].kin);
        versions.any(|&version| self.records[version].hold == Hold::Dead)
    }

    fn forget_holds(&mut self, key: i64) {
        self.records.iter_mut().filter(|record| record.key == key).for_each(|record| record.hold = Hold::None);
    }

    fn tell(&self, version: Version) -> String {
        format!("version {version}, {:?},", self.records[version])
    }
}
