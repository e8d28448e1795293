//! Last stage: a report becomes text on a terminal or a line of JSON.
//!
//! A sink knows the model and the writer it was given, and of the host only its time zone. It asks
//! no clock and no kernel, and decides nothing about what is reported. Whatever a process chose
//! itself (its name, its socket's path) is escaped here and nowhere before.

mod audit;
mod doctor;
mod explain;
#[cfg(test)]
pub(crate) mod fixtures;
mod journal;
mod json;
mod listeners;
mod metrics;
mod queued;
mod sanitize;
mod terminal;

pub use audit::{audit_json, audit_text};
pub use doctor::{doctor_json, doctor_text};
pub use explain::{explain_json, explain_text, listener_query};
pub use journal::Journal;
pub use json::Json;
pub use listeners::{listeners_json, listeners_text};
pub use metrics::{METRICS_TYPE, metrics_text};
pub use queued::{Queued, WhenFull};
pub use terminal::{Colour, Terminal};

use crate::model::{Report, WallClock};

/// Where reports go.
pub trait Sink {
    /// Writes one report with a single write, and flushes: whoever reads sees whole lines at once.
    ///
    /// `clock` turns boot times into dates. A broken pipe is an error like any other here; what it
    /// means is the caller's to say.
    fn write(&mut self, report: &Report, clock: &WallClock) -> std::io::Result<()>;
}

impl Sink for Box<dyn Sink> {
    fn write(&mut self, report: &Report, clock: &WallClock) -> std::io::Result<()> {
        (**self).write(report, clock)
    }
}
