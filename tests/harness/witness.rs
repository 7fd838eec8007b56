//! Reads from the log of the `counts` guest what was sent, and how often.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::bus::row_of;
use super::{PATIENCE, pause};

/// The log of one or more relays whose plugin is the `counts` guest.
pub struct Witness {
    log: PathBuf,
}

impl Witness {
    pub fn new(folder: &Path) -> Self {
        Self { log: folder.join("witness.log") }
    }

    /// The file for a relay's standard error, opened to append.
    pub fn stderr(&self) -> File {
        File::options().create(true).append(true).open(&self.log).unwrap()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How often each row was passed to the plugin; it must have had the same id each time.
    pub fn counts(&self) -> HashMap<String, u32> {
        let mut counts: HashMap<String, (String, u32)> = HashMap::new();
        for id in self.ids() {
            let (first, count) = counts.entry(row_of(&id).to_owned()).or_insert_with(|| (id.clone(), 0));
            // A line cut off by a kill is incomplete, but its batch was not settled.
            let same = first.starts_with(&id) || id.starts_with(&*first);
            assert!(same, "one row was sent with two ids: {first}, {id}");
            *count += 1;
        }
        counts.into_iter().map(|(row, (_, count))| (row, count)).collect()
    }

    /// The rows, in the order in which they were passed to the plugin.
    pub fn order(&self) -> Vec<String> {
        self.ids().iter().map(|id| row_of(id).to_owned()).collect()
    }

    /// The ids of the signals, in the order in which they were passed to the plugin.
    pub fn ids(&self) -> Vec<String> {
        let text = self.text();
        // After a line that was cut off by a kill, the next one goes on.
        let batches = text.lines().filter(|line| line.contains("counted")).flat_map(|line| line.split("ids=").skip(1));
        let ids = batches.flat_map(|ids| ids.trim().trim_matches('"').split(','));
        ids.filter(|id| !id.contains(' ')).map(str::to_owned).collect()
    }

    /// Waits until the log contains some words.
    pub fn wait_until(&self, words: &str) {
        let begun = Instant::now();
        while !self.text().contains(words) {
            assert!(begun.elapsed() < PATIENCE, "{words:?} was not logged: {}", self.text());
            std::thread::sleep(pause(begun));
        }
    }

    /// Waits until this many signals were passed to the plugin.
    pub fn wait_for(&self, signals: usize) {
        let begun = Instant::now();
        while self.counts().len() < signals {
            assert!(begun.elapsed() < PATIENCE, "too few signals were sent: {}", self.text());
            std::thread::sleep(pause(begun));
        }
    }

    /// Asserts that every row of `order_placed` was sent, always with the same id; returns the number of duplicates.
    pub fn all_sent(&self, rows: u32) -> u32 {
        self.counts();
        self.all_sent_with_any_id(rows)
    }

    /// The same, where the database may have lost the record of a claim.
    pub fn all_sent_with_any_id(&self, rows: u32) -> u32 {
        let mut counts: HashMap<String, u32> = HashMap::new();
        self.order().into_iter().for_each(|row| *counts.entry(row).or_default() += 1);
        let missing: Vec<u32> = (1..=rows).filter(|n| !counts.contains_key(&format!("OrderPlaced:{n}"))).collect();
        assert!(missing.is_empty(), "never sent: {missing:?}");
        counts.values().map(|count| count - 1).sum()
    }
}
