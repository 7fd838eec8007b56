//! What a bench prints and keeps.

use serde_json::Value;

/// Figures, each the median of several runs.
#[derive(Default)]
pub struct Report {
    entries: Vec<Value>,
}

impl Report {
    /// Prints and keeps a figure: the median of the values, with what is wanted of it.
    pub fn add(&mut self, name: &str, mut values: Vec<f64>, unit: &str, wanted: &str) {
        values.sort_by(f64::total_cmp);
        let (least, median, most) = (values[0], values[values.len() / 2], values[values.len() - 1]);
        let digits = if matches!(unit, "ratio" | "ms") { 2 } else { 0 };
        let said = if wanted.is_empty() { String::new() } else { format!("  wanted: {wanted}") };
        println!("{name:<52} {median:>12.digits$} {unit:<9} ({least:.digits$} to {most:.digits$}){said}");
        let against = if wanted.is_empty() { Value::Null } else { wanted.into() };
        self.entries.push(serde_json::json!({
            "name": name, "value": median, "unit": unit, "runs": values.len(), "against": against,
        }));
    }

    /// Writes `target/bench.json`: what other benches have left there stays.
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
