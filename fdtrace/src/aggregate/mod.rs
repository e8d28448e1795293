//! Stage 4: failures and counts → episodes and totals; looks at what fills → warnings.
//!
//! Nothing here reads a clock, a file or the kernel: time is passed in, and what must be looked up
//! is asked of a [`Host`].

mod aggregator;
mod episode;
mod slots;
mod subject;
mod tally;
#[cfg(test)]
mod tests;
mod warnings;

pub use aggregator::{Aggregator, Counted, Host, Refused, Settings};
pub use slots::SlotCount;
pub use warnings::{Sample, Warnings, Watched};
