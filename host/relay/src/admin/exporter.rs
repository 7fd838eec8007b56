//! The recorder that collects the metrics of `signalbus-telemetry` and renders them for Prometheus.
//!
//! A process has at most one. Next: `meters` in `signalbus-telemetry`, which lists the metrics; the
//! router in `admin`, which renders them.

use metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use signalbus_telemetry::meters::{Kind, METRICS};

const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const SIGNALS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0];

/// A handle to the installed metrics recorder.
#[derive(Clone)]
pub struct Meters(PrometheusHandle);

impl Meters {
    /// Installs the recorder: metrics are collected from now on.
    ///
    /// # Errors
    /// The process already has a recorder.
    pub fn start() -> Result<Self, String> {
        let buckets = |builder: PrometheusBuilder, (name, kind, ..): &(&str, Kind, &str, &str)| match kind {
            Kind::Histogram => {
                let buckets = if name.ends_with("_seconds") { SECONDS } else { SIGNALS };
                builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)
            }
            Kind::Counter | Kind::Gauge => Ok(builder),
        };
        let builder = METRICS.iter().try_fold(PrometheusBuilder::new(), buckets).map_err(|error| error.to_string())?;
        let handle = builder.install_recorder().map_err(|error| error.to_string())?;
        for &(name, kind, _, description) in METRICS {
            match kind {
                Kind::Counter => metrics::describe_counter!(name, description),
                Kind::Gauge => metrics::describe_gauge!(name, description),
                Kind::Histogram => metrics::describe_histogram!(name, description),
            }
        }
        gauge!("signalbus_up", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(Self(handle))
    }

    /// Renders all metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}
