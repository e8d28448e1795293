//! When something happened, on the wall clock: the only one that servers write into their logs.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::Value;

/// What is promised: from a failed accept to its report.
const PROMPT: SignedDuration = SignedDuration::from_secs(1);

/// The time of an instant of a moment ago.
pub(crate) fn wall(at: Instant) -> Timestamp {
    Timestamp::now() - at.elapsed()
}

/// A time in a server's log; the servers run with `TZ=UTC`.
#[track_caller]
pub(crate) fn utc(format: &str, text: &str) -> Timestamp {
    let time = DateTime::strptime(format, text).unwrap_or_else(|error| panic!("{text}: {error}"));
    time.to_zoned(TimeZone::UTC).unwrap().timestamp()
}

/// Fails unless the report came, and says that it was made, within a second of `failure`.
#[track_caller]
pub(crate) fn assert_prompt((arrived, report): &(Instant, Value), failure: Timestamp) {
    let arrived = wall(*arrived).duration_since(failure);
    let made: Timestamp = report["time"].as_str().unwrap().parse().unwrap();
    let made = made.duration_since(failure);
    println!("    reported after {arrived:?}, made after {made:?}");
    assert!(arrived <= PROMPT, "reported {arrived:?} after the failure: {report}");
    assert!(made <= PROMPT, "made {made:?} after the failure: {report}");
}
