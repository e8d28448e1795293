//! Making evidence, and its figures as an operator reads them.

use std::time::Duration;

use crate::model::{Census, Evidence, Remedy, Value, When};

/// `source` of what a census found.
pub(super) const CENSUS: &str = "/proc/PID/fd and the TCP table";
/// `source` of what threads did.
pub(super) const THREADS: &str = "/proc/PID/task";

pub(super) fn count(fact: &'static str, number: u64, unit: &'static str) -> Evidence {
    Evidence { fact, value: Value::Count(number), unit: Some(unit), source: None }
}

pub(super) fn share(fact: &'static str, share: f64, of: &'static str) -> Evidence {
    Evidence { fact, value: Value::Share(share), unit: Some(of), source: None }
}

pub(super) fn rate(fact: &'static str, per_second: f64, unit: &'static str) -> Evidence {
    Evidence { fact, value: Value::PerSecond(per_second), unit: Some(unit), source: None }
}

pub(super) fn lasting(fact: &'static str, duration: Duration) -> Evidence {
    Evidence { fact, value: Value::Lasting(duration), unit: None, source: None }
}

pub(super) fn text(fact: &'static str, text: impl Into<String>) -> Evidence {
    Evidence { fact, value: Value::Text(text.into()), unit: None, source: None }
}

pub(super) fn from(evidence: Evidence, source: impl Into<String>) -> Evidence {
    Evidence { source: Some(source.into()), ..evidence }
}

pub(super) fn remedy(when: When, text: impl Into<String>, command: Option<String>) -> Remedy {
    Remedy { when, text: text.into(), command }
}

/// `614 of 1024`, or `about 614 of 1024` where not all were looked at.
pub(super) fn of_open(census: &Census, number: u64) -> String {
    let about = if census.is_sampled() { "about " } else { "" };
    format!("{about}{number} of {} descriptors", census.open.number())
}

/// How many descriptors, and how they were counted.
pub(super) fn census(census: &Census) -> Vec<Evidence> {
    let open = from(count("open_fds", census.open.number(), "file descriptors"), CENSUS);
    let looked_at = from(count("looked_at", census.looked_at, "file descriptors"), CENSUS);
    if census.is_sampled() { vec![open, looked_at] } else { vec![open] }
}

/// `7 s`, `4 min`, `3 h`, `9 days`: no more exact than somebody can take in.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..1 => format!("{} ms", duration.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `7`, `0.3`
pub(super) fn per_second(rate: f64) -> String {
    if rate >= 10.0 { format!("{rate:.0}/s") } else { format!("{rate:.1}/s") }
}

/// `61 %`
pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// `one client`, `7 clients`
pub(super) fn several(number: u64, one: &str, more: &str) -> String {
    if number == 1 { format!("one {one}") } else { format!("{number} {more}") }
}

/// Whether a name needs no quoting in a shell.
pub(super) fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@:".contains(&byte);
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(is_plain)
}

/// The least part that a share is of all, if it was found in a sample: two standard deviations
/// below.
pub(super) fn at_least(census: &Census, share: f64) -> f64 {
    if !census.is_sampled() {
        return share;
    }
    #[expect(clippy::cast_precision_loss, reason = "a sample has thousands, not 2^53")]
    let sample = census.looked_at.max(1) as f64;
    (share - 2.0 * (share * (1.0 - share) / sample).sqrt()).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let cases = [
            (Duration::from_millis(7), "7 ms"),
            (Duration::from_secs(119), "119 s"),
            (Duration::from_secs(120), "2 min"),
            (Duration::from_secs(7_200), "2 h"),
            (Duration::from_secs(9 * 86_400), "9 days"),
        ];
        for (duration, expected) in cases {
            assert_eq!(span(duration), expected);
        }
        assert_eq!((per_second(10_000.4), per_second(0.25)), ("10000/s".into(), "0.2/s".into()));
        assert_eq!(percent(0.614), "61 %");
        assert_eq!(
            (several(1, "client", "clients"), several(7, "client", "clients")),
            ("one client".into(), "7 clients".into())
        );
    }
}
