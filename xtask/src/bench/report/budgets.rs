//! What fdtrace promises, beside what was measured.

use std::fmt::{self, Write as _};

use super::{Report, Row};
use crate::bench::{attachment::Attachment, work::Work};

struct Budget {
    what: &'static str,
    promised: &'static str,
    measured: String,
    /// The same with empty programs: what nobody who attaches there can avoid.
    empty: String,
    holds: bool,
}

pub(super) fn write(report: &Report, to: &mut String) -> fmt::Result {
    let budgets = budgets(report);
    if budgets.is_empty() {
        return Ok(());
    }
    writeln!(
        to,
        "\n## Promises\n\n| what | promised | measured | empty programs | |\n| --- | --- | --- | --- | --- |"
    )?;
    for Budget { what, promised, measured, empty, holds } in budgets {
        let verdict = if holds { "holds" } else { "**missed**" };
        writeln!(to, "| {what} | {promised} | {measured} | {empty} | {verdict} |")?;
    }
    Ok(())
}

fn budgets(report: &Report) -> Vec<Budget> {
    let mut budgets = Vec::new();
    let fdtrace = |work| report.work(work)?.row(Attachment::Fdtrace.name());
    let mut add = |what, promised, measured: Option<(f64, bool)>, unit: &str| {
        if let Some((measured, holds)) = measured {
            let measured = format!("{measured:.3}{unit}");
            let empty = String::new();
            budgets.push(Budget { what, promised, measured, empty, holds });
        }
    };
    let to_empty = |row: &Row| Some(row.to_empty?.median);
    let at_most = |bound: f64| move |measured: f64| (measured, measured <= bound);
    let at_least = |bound: f64| move |measured: f64| (measured, measured >= bound);

    let unrelated = fdtrace(Work::Getppid).and_then(to_empty);
    add("an unrelated system call", "≤ 1.03 × empty programs", unrelated.map(at_most(1.03)), " ×");
    let accept = fdtrace(Work::Accept).map(|row| 1.0 / row.to_nothing.median);
    add("accepts, rate", "≥ 0.99 × nothing", accept.map(at_least(0.99)), " ×");
    let refused = fdtrace(Work::Refused).and_then(to_empty);
    add("EMFILE in a tight loop", "≤ 1.5 × empty programs", refused.map(at_most(1.5)), " ×");
    let exact = [Work::Refused, Work::RefusedTwice]
        .map(|work| fdtrace(work).map(|row| row.seen == Some(row.operations)));
    if let [Some(one), Some(two)] = exact {
        let share = if one && two { 1.0 } else { 0.0 };
        add("EMFILE at full speed, counted", "all", Some((share, one && two)), "");
    }
    let traffic = fdtrace(Work::Traffic).map(|row| row.to_nothing.median);
    add("established traffic", "≤ 1.03 × nothing", traffic.map(at_most(1.03)), " ×");
    let rate = fdtrace(Work::Connections).map(|row| 1.0 / row.to_nothing.median);
    add("connections, rate", "≥ 0.98 × nothing", rate.map(at_least(0.98)), " ×");
    if let Some(alone) = &report.alone {
        let idle = &alone.idle;
        #[expect(clippy::cast_precision_loss, reason = "a few MiB")]
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        add("idle: CPU", "< 0.1 % of one", Some(at_most(0.1)(idle.cpu_percent)), " %");
        let wakeups = idle.wakeups_per_second;
        add("idle: wakeups", "≤ 1 a second", Some((wakeups, wakeups < 1.1)), " a second");
        add("resident memory", "≤ 12 MiB", Some(at_most(12.0)(mib(idle.rss_kib * 1024))), " MiB");
        add("start", "≤ 100 ms", Some(at_most(100.0)(alone.start_ms.median)), " ms");
        add("binary", "≤ 6 MiB", Some(at_most(6.0)(mib(alone.binary_bytes))), " MiB");
        add("latency, p99", "≤ 5 ms", Some(at_most(5.0)(alone.latency.p99_ms)), " ms");
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
            budget.empty = format!("{:.3} ×", if is_rate { 1.0 / ratio } else { ratio });
        }
    }
}
