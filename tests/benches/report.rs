//! The report of a benchmark.

use serde_json::Value;

/// Figures, each the median of several runs.
#[derive(Default)]
pub struct Report {
    entries: Vec<Value>,
}

impl Report {
    /// Prints and records a figure: the median of the values, with its target.
    pub fn add(&mut self, name: &str, mut values: Vec<f64>, unit: &str, target: &str) {
        values.sort_by(f64::total_cmp);
        let (least, median, most) = (values[0], values[values.len() / 2], values[values.len() - 1]);
        let digits = if matches!(unit, "ratio" | "ms") { 2 } else { 0 };
        let note = if target.is_empty() { String::new() } else { format!("  target: {target}") };
        println!("{name:<52} {median:>12.digits$} {unit:<9} ({least:.digits$} to {most:.digits$}){note}");
        let against = if target.is_empty() { Value::Null } else { target.into() };
        self.entries.push(serde_json::json!({
            "name": name, "value": median, "unit": unit, "runs": values.len(), "against": against,
        }));
    }

    /// Writes `target/bench.json`, and keeps the figures of other benchmarks in it.
    pub fn write(self) {
        let file = super::harness::target().join("bench.json");
        let before = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Vec<Value>>(&text).ok());
        let replaced = |entry: &Value| self.entries.iter().any(|own| own["name"] == entry["name"]);
        let mut all: Vec<Value> = before.unwrap_or_default().into_iter().filter(|entry| !replaced(entry)).collect();
        all.extend(self.entries);
        std::fs::write(&file, serde_json::to_string_pretty(&all).unwrap()).unwrap();
        println!("written to {}", file.canonicalize().unwrap().display());
    }
}
