//! What is about to run out, and that it is not any more.

use super::{
    Colour,
    line::GAP,
    words::{Times, Tone, duration, headline, on_what, who},
};
use crate::model::{Door, Filling, Gauge, Outcome, Resource, Warning, WarningReport};

/// `21:56:13.120 WARNING    nginx[812] *:80  fds 820/1024 soft (80 %)  +2.1/s, full in 1m37s`
pub(super) fn line(report: &WarningReport, times: &Times<'_>, colour: Colour) -> String {
    let Warning { outcome, gauge, filling, since, most, .. } = report.warning;
    let (word, tone) = match outcome {
        None => ("WARNING", Tone::Warning),
        Some(Outcome::Recovered) => ("RECOVERED", Tone::Good),
        Some(Outcome::Exited) => ("EXITED", Tone::Neutral),
        Some(Outcome::Unfinished) => ("unfinished", Tone::Neutral),
    };
    let mut parts = vec![
        format!(
            "{} {}{} {}",
            times.precise(report.at),
            headline(word, tone, colour),
            who(&report.owners),
            // It is a listener, or one that could not be read.
            on_what(&report.target, Door::Accept)
        ),
        level(report.resource, gauge),
    ];
    if outcome.is_none() {
        parts.extend(filling.and_then(speed));
    } else {
        let lasted = duration(report.at.since(since));
        parts.push(format!("after {lasted}: at most {most}"));
    }
    parts.join(GAP) + "\n"
}

fn level(resource: Resource, gauge: Gauge) -> String {
    let Gauge { used, limit } = gauge;
    // Down, for 95 % is not reached before it is.
    let percent = u128::from(used) * 100 / u128::from(limit.max(1));
    match resource {
        Resource::Fds(_) => format!("fds {used}/{limit} soft ({percent} %)"),
        Resource::AcceptQueue => format!("accept queue {used}/{limit} ({percent} %)"),
    }
}

/// `+2.1/s, full in 1m37s`; `None` where it is too slow to say.
fn speed(filling: Filling) -> Option<String> {
    let Filling { per_second, full_in } = filling;
    let (number, unit) =
        if per_second < 1.0 { (per_second * 60.0, "min") } else { (per_second, "s") };
    let digits = usize::from(number < 10.0);
    (number >= 0.1).then(|| format!("+{number:.digits$}/{unit}, full in {}", duration(full_in)))
}
