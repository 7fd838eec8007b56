//! Reads from the log of the `counts` guest what was sent, and how often.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

    /// How often each signal was passed to the plugin.
    pub fn counts(&self) -> HashMap<String, u32> {
        let mut counts = HashMap::new();
        for line in self.text().lines().filter(|line| line.contains("counted")) {
            let Some((_, ids)) = line.split_once("ids=") else { continue };
            // A line cut off by a kill is incomplete, but its batch was not settled.
            for id in ids.trim().trim_matches('"').split(',') {
                *counts.entry(id.to_owned()).or_default() += 1;
            }
        }
        counts
    }

    /// The IDs of the signals, in the order they were passed to the plugin.
    pub fn order(&self) -> Vec<String> {
        let text = self.text();
        let batches = text.lines().filter(|line| line.contains("counted")).filter_map(|line| line.split_once("ids="));
        batches.flat_map(|(_, ids)| ids.trim().trim_matches('"').split(',').map(str::to_owned)).collect()
    }

    /// Waits until the log contains some words.
    pub fn wait_until(&self, words: &str) {
        let begun = Instant::now();
        while !self.text().contains(words) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{words:?} was not logged: {}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until this many signals were passed to the plugin.
    pub fn wait_for(&self, signals: usize) {
        let begun = Instant::now();
        while self.counts().len() < signals {
            assert!(begun.elapsed() < Duration::from_secs(60), "too few signals were sent: {}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asserts that every row of `order_placed` was sent; returns the number of duplicates.
    pub fn all_sent(&self, rows: u32) -> u32 {
        let counts = self.counts();
        let missing: Vec<u32> = (1..=rows).filter(|n| !counts.contains_key(&format!("OrderPlaced:{n}"))).collect();
        assert!(missing.is_empty(), "never sent: {missing:?}");
        counts.values().map(|count| count - 1).sum()
    }
}
