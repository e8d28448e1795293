//! The file as TOML has it: every key once, and where its value stands.

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) trace: RawTrace,
    pub(super) output: RawOutput,
    pub(super) metrics: RawMetrics,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTrace {
    pub(super) ports: Vec<Spanned<i64>>,
    pub(super) comms: Vec<Spanned<String>>,
    pub(super) units: Vec<Spanned<String>>,
    pub(super) containers: Vec<Spanned<String>>,
    pub(super) pods: Vec<Spanned<String>>,
    pub(super) errnos: Vec<Spanned<String>>,
    pub(super) fds: Option<bool>,
    pub(super) warn_at: Option<Vec<Spanned<i64>>>,
    pub(super) interval: Option<Spanned<String>>,
    pub(super) packets: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawOutput {
    pub(super) stdout: Option<Spanned<String>>,
    pub(super) json_file: Option<Spanned<String>>,
    pub(super) journal: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawMetrics {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) socket: Option<Spanned<String>>,
    pub(super) max_series: Option<Spanned<i64>>,
}

/// What the command line's parsers read.
pub(super) fn to_text(number: Spanned<i64>) -> Spanned<String> {
    let span = number.span();
    Spanned::new(span, number.into_inner().to_string())
}
