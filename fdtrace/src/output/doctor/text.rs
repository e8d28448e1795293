//! The report for a person: the answer first. Layout only, and no format to parse.

use std::fmt::Write as _;

use super::wrap;
use crate::{
    model::{
        Check, DoctorReport, DoctorVerdict, Fact, FactState, FormExamined, FormOutcome,
        ProbeExamined, ProgramCost, SelfTest,
    },
    output::{
        sanitize,
        terminal::{
            Colour,
            table::{Column, lay_out},
        },
    },
};

/// The report.
#[must_use]
pub fn doctor_text(report: &DoctorReport, colour: Colour) -> String {
    let mut text = String::new();
    verdict(&mut text, report, colour);
    let DoctorReport { kernel, machine, version, .. } = report;
    let kernel = sanitize::escape(kernel.as_bytes());
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\nLinux {kernel}  {machine}  fdtrace {version}");
    text.push_str("\nhost\n");
    for one in &report.facts {
        fact(&mut text, one, colour);
    }
    probes(&mut text, &report.probes);
    if !report.unseen.is_empty() {
        text.push_str("\nnot seen here\n");
    }
    for unseen in &report.unseen {
        let why = match &unseen.remedy {
            Some(remedy) => format!("{}: {}; {remedy}", unseen.what, unseen.why),
            None => format!("{}: {}", unseen.what, unseen.why),
        };
        wrap::push(&mut text, "  - ", 4, &why);
    }
    self_test(&mut text, report);
    costs(&mut text, report);
    text
}

fn verdict(text: &mut String, report: &DoctorReport, colour: Colour) {
    let (code, line) = match &report.verdict {
        DoctorVerdict::Works => (32, format!("fdtrace works here: {}", forms(report))),
        DoctorVerdict::Untested(why) => {
            let forms = forms(report);
            (33, format!("fdtrace is attached here, but was not tested ({why}): {forms}"))
        }
        DoctorVerdict::Blind(what) => {
            (31, format!("fdtrace attaches here but does not see everything: {what} were counted"))
        }
        DoctorVerdict::Unsupported(why) => (31, format!("fdtrace cannot work here: {why}")),
        DoctorVerdict::NotPermitted(why) => {
            (31, format!("fdtrace cannot work for this user: {why}"))
        }
        DoctorVerdict::Failed(why) => (31, format!("fdtrace cannot start here: {why}")),
    };
    // On one line, however long: it is what is quoted first.
    let line = sanitize::escape(line.as_bytes());
    let _ = match colour {
        Colour::Never => writeln!(text, "{line}"),
        Colour::Always => writeln!(text, "\x1b[{code}m{line}\x1b[0m"),
    };
}

/// `failed accepts by fexit, refused clients by fentry (SYN) and kprobe (last ACK)`
fn forms(report: &DoctorReport) -> String {
    let (syn, ack) = (report.form("syn"), report.form("ack"));
    let clients = match (syn, ack) {
        ("none", "none") => "refused clients not seen".to_owned(),
        ("sock_diag", "sock_diag") => "refused clients polled, which gives upper bounds".to_owned(),
        (syn, ack) if syn == ack => format!("refused clients by {syn}"),
        (syn, ack) => format!("refused clients by {syn} (SYN) and {ack} (last ACK)"),
    };
    format!("failed accepts by {}, {clients}", report.form("accept"))
}

fn fact(text: &mut String, fact: &Fact, colour: Colour) {
    /// Where the facts themselves start.
    const INDENT: usize = 29;
    let (word, code) = match fact.state {
        FactState::Good => ("ok", None),
        FactState::Less => ("less", Some(33)),
        FactState::Bad => ("BAD", Some(31)),
        FactState::Unknown => ("unknown", None),
    };
    let lead = format!("  {word:<8} {:<18}", fact.name);
    let start = text.len();
    wrap::push(text, &lead, INDENT, &fact.value);
    if let (Colour::Always, Some(code)) = (colour, code) {
        let at = start + 2;
        text.replace_range(at..at + word.len(), &format!("\x1b[{code}m{word}\x1b[0m"));
    }
    for (word, what) in [("so:", &fact.consequence), ("do:", &fact.remedy)] {
        if let Some(what) = what {
            let what = format!("{word} {what}");
            wrap::push(text, &" ".repeat(INDENT), INDENT + 4, &what);
        }
    }
}

/// A row for each probe; what stands against a form is said once, below.
fn probes(text: &mut String, probes: &[ProbeExamined]) {
    let mut notes: Vec<String> = Vec::new();
    let rows: Vec<_> = probes
        .iter()
        .map(|probe| {
            let forms = probe.forms.iter().map(|form| cell(form, &mut notes));
            (probe, forms.collect::<Vec<_>>())
        })
        .collect();
    let used = |probe: &ProbeExamined| match (probe.used, probe.on_request) {
        ("sock_diag", _) => "polled".to_owned(),
        ("none", _) => "-".to_owned(),
        (form, true) if probe.points.is_empty() => format!("({form})"),
        (form, _) => form.to_owned(),
    };
    let form = |index: usize| {
        move |(_, forms): &(&ProbeExamined, Vec<String>)| {
            forms.get(index).cloned().unwrap_or_default()
        }
    };
    let columns = [
        Column::of("  PROBE", &rows, |(probe, _)| format!("  {}", probe.probe)),
        Column::of("FORM USED", &rows, |(probe, _)| used(probe)),
        Column::of("FORMS TRIED", &rows, form(0)),
        Column::of("", &rows, form(1)),
        Column::of("", &rows, form(2)),
    ];
    text.push_str("\nprobes\n");
    text.push_str(&lay_out(&columns, rows.len()));
    for (number, note) in (1..).zip(&notes) {
        wrap::push(text, &format!("  [{number}] "), 6, note);
    }
    if rows.iter().any(|(probe, _)| used(probe).starts_with('(')) {
        text.push_str("  (form): only with --fds\n");
    }
    if probes.iter().any(|probe| !probe.points.is_empty()) {
        text.push_str("\nattached to\n");
    }
    for probe in probes.iter().filter(|probe| !probe.points.is_empty()) {
        wrap::push(text, &format!("  {:<12}", probe.probe), 14, &probe.points.join(" "));
    }
}

/// `fexit ok`, `kprobe no [1]`
fn cell(form: &FormExamined, notes: &mut Vec<String>) -> String {
    let FormExamined { form, outcome } = form;
    let (word, why) = match outcome {
        FormOutcome::Works => return format!("{form} ok"),
        FormOutcome::Lacks(why) | FormOutcome::Failed(why) => ("no", why.clone()),
        FormOutcome::Forbidden(_) => ("no", FORBIDDEN.to_owned()),
        FormOutcome::NotTried(why) => ("?", format!("not tried: {why}")),
    };
    let number = notes.iter().position(|note| *note == why).unwrap_or_else(|| {
        notes.push(why);
        notes.len() - 1
    });
    format!("{form} {word} [{}]", number + 1)
}

const FORBIDDEN: &str = "the host forbids it, though this process has the capabilities (EPERM): a \
                         seccomp filter, lockdown, or a security module";

fn self_test(text: &mut String, report: &DoctorReport) {
    let SelfTest { own_namespace, took, checks } = match &report.self_test {
        Ok(ran) => ran,
        Err(why) => {
            text.push('\n');
            wrap::push(text, "self-test: not run: ", 2, why);
            return;
        }
    };
    let took = took.as_millis();
    let place = match own_namespace {
        Ok(()) => "in a network namespace of its own".to_owned(),
        Err(why) => format!("in fdtrace's network namespace ({why})"),
    };
    text.push('\n');
    let what = format!("a child failed on purpose, {place}; {took} ms");
    wrap::push(text, "self-test: ", 2, &what);
    let seen = |check: &Check| check.seen.map_or_else(|| "-".to_owned(), |seen| seen.to_string());
    let verdict = |check: &Check| match check.seen {
        None => "not looked for",
        Some(_) if check.is_exact() => "exact",
        Some(_) => "WRONG",
    };
    let columns = [
        Column::of("  WHAT FAILED", checks, |check| format!("  {}", check.door)),
        Column::of("WITH", checks, |check| check.failure.replace('_', " ")),
        Column::of("MADE", checks, |check| check.made.to_string()).at_right(),
        Column::of("SEEN", checks, seen).at_right(),
        Column::of("", checks, |check| verdict(check).to_owned()),
    ];
    text.push_str(&lay_out(&columns, checks.len()));
}

fn costs(text: &mut String, report: &DoctorReport) {
    let costs = match &report.costs {
        Ok(costs) => costs,
        // Said already.
        Err(why) if report.self_test.as_ref().err() == Some(why) => return,
        Err(why) => {
            text.push('\n');
            wrap::push(text, "cost: not measured: ", 2, why);
            return;
        }
    };
    text.push_str("\ncost while that ran, by the kernel's clock, whose own time is in it\n");
    let known =
        |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    let nanos = |cost: &ProgramCost| {
        cost.nanos_per_run().map_or_else(|| "-".to_owned(), |nanos| nanos.to_string())
    };
    let jited = |cost: &ProgramCost| match cost.is_jited {
        _ if cost.runs == 0 => "not exercised",
        Some(false) => "interpreted",
        Some(true) | None => "",
    };
    let columns = [
        Column::of("  PROGRAM", costs, |cost| format!("  {}", cost.program)),
        Column::of("NS/RUN", costs, nanos).at_right(),
        Column::of("RUNS", costs, |cost| cost.runs.to_string()).at_right(),
        Column::of("VERIFIED INSNS", costs, |cost| known(cost.instructions)).at_right(),
        Column::of("", costs, |cost| jited(cost).to_owned()),
    ];
    text.push_str(&lay_out(&columns, costs.len()));
}
