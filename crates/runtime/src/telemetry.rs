//! Logs and metrics.
//!
//! Promises: logs go to stderr, stdout is data; one line a record, newline-escaped in JSON; what is recorded in detail
//! ([`recording`]) changes nothing of that.
//! Never: logs a secret or a row's value (whoever logs passes names, numbers and codes).

use std::{io::IsTerminal as _, sync::OnceLock};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::recording;

/// Form of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Words for people on a terminal, else JSON.
    #[default]
    Auto,
    Text,
    Json,
}

/// Starts logging; `level` is a filter such as `info` or `warn,server=debug`. A second call changes nothing.
pub fn start(level: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let text = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let shown = fmt::layer().with_writer(std::io::stderr);
    let shown = if text { shown.with_target(false).boxed() } else { shown.json().boxed() };
    // Silent, and as cheap as nothing, until a recording begins.
    let (detail, handle) = reload::Layer::new(recording::silent());
    let kept = fmt::layer().json().with_writer(recording::Sink).with_filter(detail);
    let both = tracing_subscriber::registry().with(shown.with_filter(filter)).with(kept);
    // An error means that a subscriber is in place already (tests, demo).
    if both.try_init().is_ok() {
        recording::attach(move |filter| {
            // An error means that the log is gone with the process.
            let _ = handle.reload(filter);
        });
    }
}

static METRICS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// The process's metrics in Prometheus text form; installs the recorder on first use.
pub fn render_metrics() -> String {
    metrics().map(PrometheusHandle::render).unwrap_or_default()
}

/// Installs the recorder, so that what is counted before the first scrape is not lost.
pub fn start_metrics() {
    metrics();
}

fn metrics() -> Option<&'static PrometheusHandle> {
    METRICS.get_or_init(|| PrometheusBuilder::new().install_recorder().ok()).as_ref()
}
