//! What fdtrace promises, beside what was measured.

use std::fmt::{self, Write as _};

use super::{Report, Row};
use crate::bench::{attachment::Attachment, work::Work};

use Bound::{AtLeast, AtMost};

/// A promise, and how it is kept.
pub(super) struct Budget {
    pub(super) what: &'static str,
    pub(super) promised: &'static str,
    measured: f64,
    unit: &'static str,
    /// The same with empty programs: what nobody who attaches there can avoid.
    empty: Option<f64>,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, measured: f64) -> bool {
        match self {
            AtMost(bound) => measured <= bound,
            AtLeast(bound) => measured >= bound,
        }
    }
}

impl Budget {
    pub(super) fn holds(&self) -> bool {
        self.bound.holds(self.measured)
    }

    /// Whether empty programs hold it, where they say something of it.
    pub(super) fn empty_holds(&self) -> Option<bool> {
        self.empty.map(|empty| self.bound.holds(empty))
    }

    pub(super) fn shown(&self) -> String {
        format!("{:.3}{}", self.measured, self.unit)
    }

    pub(super) fn shown_empty(&self) -> String {
        self.empty.map(|empty| format!("{empty:.3}{}", self.unit)).unwrap_or_default()
    }
}

pub(super) fn write(budgets: &[Budget], to: &mut String) -> fmt::Result {
    if budgets.is_empty() {
        return Ok(());
    }
    writeln!(
        to,
        "\n## Promises\n\n| what | promised | measured | empty programs | |\n| --- | --- | --- | --- | --- |"
    )?;
    for budget in budgets {
        let Budget { what, promised, .. } = budget;
        let (measured, empty) = (budget.shown(), budget.shown_empty());
        let verdict = if budget.holds() { "holds" } else { "**missed**" };
        writeln!(to, "| {what} | {promised} | {measured} | {empty} | {verdict} |")?;
    }
    Ok(())
}

/// Those of which something was measured.
pub(super) fn of(report: &Report) -> Vec<Budget> {
    let mut budgets = Vec::new();
    let fdtrace = |work| report.work(work)?.row(Attachment::Fdtrace.name());
    let mut add = |what, promised, measured: Option<f64>, bound, unit| {
        if let Some(measured) = measured {
            budgets.push(Budget { what, promised, measured, unit, empty: None, bound });
        }
    };
    let to_empty = |row: &Row| Some(row.to_empty?.median);
    let unrelated = fdtrace(Work::Getppid).and_then(to_empty);
    add("an unrelated system call", "≤ 1.03 × empty programs", unrelated, AtMost(1.03), " ×");
    let accept = fdtrace(Work::Accept).map(|row| 1.0 / row.to_nothing.median);
    add("accepts, rate", "≥ 0.99 × nothing", accept, AtLeast(0.99), " ×");
    let refused = fdtrace(Work::Refused).and_then(to_empty);
    add("EMFILE in a tight loop", "≤ 1.5 × empty programs", refused, AtMost(1.5), " ×");
    let exact = [Work::Refused, Work::RefusedTwice]
        .map(|work| fdtrace(work).map(|row| row.seen == Some(row.operations)));
    if let [Some(one), Some(two)] = exact {
        let share = if one && two { 1.0 } else { 0.0 };
        add("EMFILE at full speed, counted", "all", Some(share), AtLeast(1.0), "");
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let flood = fdtrace(Work::Flood).map(|row| match row.seen {
        Some(seen) if seen == row.operations => 1.0,
        // Counting some that were not there is no better than missing some.
        Some(seen) => (seen.min(row.operations) as f64 / row.operations as f64).min(0.999),
        None => 0.0,
    });
    add("SYN flood at full speed, counted", "all", flood, AtLeast(1.0), "");
    let traffic = fdtrace(Work::Traffic).map(|row| row.to_nothing.median);
    add("established traffic", "≤ 1.03 × nothing", traffic, AtMost(1.03), " ×");
    let rate = fdtrace(Work::Connections).map(|row| 1.0 / row.to_nothing.median);
    add("connections, rate", "≥ 0.98 × nothing", rate, AtLeast(0.98), " ×");
    if let Some(alone) = &report.alone {
        let idle = &alone.idle;
        #[expect(clippy::cast_precision_loss, reason = "a few MiB")]
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        add("idle: CPU", "< 0.1 % of one", Some(idle.cpu_percent), AtMost(0.1), " %");
        // Twenty-one in twenty seconds is one a second.
        let wakeups = Some(idle.wakeups_per_second);
        add("idle: wakeups", "≤ 1 a second", wakeups, AtMost(1.1), " a second");
        let rss = Some(mib(idle.rss_kib * 1024));
        add("resident memory", "≤ 12 MiB", rss, AtMost(12.0), " MiB");
        add("start", "≤ 100 ms", Some(alone.start_ms.median), AtMost(100.0), " ms");
        add("binary", "≤ 6 MiB", Some(mib(alone.binary_bytes)), AtMost(6.0), " MiB");
        add("latency, p99", "≤ 5 ms", Some(alone.latency.p99_ms), AtMost(5.0), " ms");
    }
    add_empty(report, &mut budgets);
    budgets
}

/// What the kernel charges for any program is no fault of ours, and no merit.
fn add_empty(report: &Report, budgets: &mut [Budget]) {
    let beside = [
        ("accepts, rate", Work::Accept, true),
        ("established traffic", Work::Traffic, false),
        ("connections, rate", Work::Connections, true),
    ];
    for (what, work, is_rate) in beside {
        let empty = report.work(work).and_then(|work| work.row(Attachment::Empty.name()));
        let budget = budgets.iter_mut().find(|budget| budget.what == what);
        if let Some((row, budget)) = empty.zip(budget) {
            let ratio = row.to_nothing.median;
            budget.empty = Some(if is_rate { 1.0 / ratio } else { ratio });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AtLeast, AtMost, Budget};

    #[test]
    fn empty_programs_are_held_to_the_same() {
        let (what, promised, unit) = ("traffic", "≤ 1.03 × nothing", " ×");
        let traffic = Budget {
            what,
            promised,
            measured: 1.051,
            unit,
            empty: Some(1.046),
            bound: AtMost(1.03),
        };
        assert_eq!((traffic.holds(), traffic.empty_holds()), (false, Some(false)));
        assert_eq!(traffic.shown_empty(), "1.046 ×");
        let rate = Budget { measured: 0.97, empty: Some(0.985), bound: AtLeast(0.98), ..traffic };
        assert_eq!((rate.holds(), rate.empty_holds()), (false, Some(true)));
        let alone = Budget { measured: 1.0, empty: None, ..rate };
        assert_eq!((alone.holds(), alone.empty_holds()), (true, None));
        assert_eq!(alone.shown_empty(), "");
    }
}
