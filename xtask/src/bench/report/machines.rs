//! The section of docs/overhead.md that `cargo xtask bench-vm` writes. `cargo xtask bench` keeps it.

use std::fmt::{self, Write as _};

use anyhow::{Context as _, Result};

use crate::bench::{
    guest::{Attached, Sample, WORKS},
    programs::{Kind, Program},
    statistics::Spread,
    vm::Machines,
    work::Work,
};

const HEADING: &str = "## In virtual machines, by the kernel's own statistics\n";

/// So few runs for an operation had another reason than it.
const NO_RUN: f64 = 0.005;

/// A page with the section in it, in the place of the one that it had.
pub(crate) fn put(page: &str, section: &str) -> String {
    match find(page) {
        Some((start, end)) => format!("{}{section}{}", &page[..start], &page[end..]),
        None => format!("{page}\n{section}"),
    }
}

/// The section that a page has.
pub(crate) fn kept(page: &str) -> Option<&str> {
    let (start, end) = find(page)?;
    Some(&page[start..end])
}

/// From its heading to the next of that level.
fn find(page: &str) -> Option<(usize, usize)> {
    let start = page.find(HEADING)?;
    let after = start + HEADING.len();
    Some((start, page[after..].find("\n## ").map_or(page.len(), |at| after + at)))
}

/// The section, for the machines that were booted.
pub(crate) fn section(machines: &Machines) -> Result<String> {
    let mut kernels: Vec<_> = machines.samples.iter().map(|sample| &*sample.kernel).collect();
    kernels.dedup();
    let tables = kernels.iter().map(|kernel| Table::of(machines, kernel));
    let tables = tables.collect::<Result<Vec<_>>>()?;
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(machines, &tables, &mut text);
    Ok(text)
}

fn write(machines: &Machines, tables: &[Table<'_>], to: &mut String) -> fmt::Result {
    let apart = tables.iter().map(Table::apart).fold(1.0, f64::max);
    let Machines { date, commit, turns, milliseconds, .. } = machines;
    writeln!(
        to,
        "{HEADING}\n\
         Counted on {date} at {commit}. `cargo xtask bench-vm --write` boots the kernels, counts again \
         and writes this section and nothing else of this page; `cargo xtask bench --write` writes all \
         of the page but this section. What each sample said is in `target/bench/vm.json`.\n\n\
         fentry, fexit and kprobes are not on every host, so these forms run on Debian's kernels in \
         emulated machines (qemu, TCG), beside what the workload did in {turns} samples of \
         {milliseconds} ms. **Times under emulation mean nothing**, so there are none here:\n\n\
         - How often a program ran for one operation is exact: run_cnt of bpf_prog_info, with \
         BPF_ENABLE_STATS. \"0\" is no run at all, and what does not run costs nothing. A few runs in \
         many operations were not for these: the workload ended, or fdtrace asked the kernel for the \
         queues of listeners by a socket of its own. SYNs for which the queue of arrived packets had no \
         room (/proc/net/softnet_stat) came to no listener, and are no operations.\n\
         - Behind it, how long these runs took (run_time_ns), in units of one run of an empty program \
         on the exit of a failing accept4(2) in the same machine and turn; the median of the turns, \
         which were up to {apart:.1} × apart: it is a rough measure. The kernel's two looks at the clock are in it, and nearly all of an empty \
         program's run. An empty program, too, runs longer where more other code ran since: what to \
         compare with is its row. What it takes to come to a program (tracepoint, trampoline, \
         breakpoint) is not in it, nor what the kernel charges every system call for a tracepoint on \
         the exit of one: the tables above tell of that.\n\
         - Instructions: \"verified\" is what the verifier went through, on all paths, \"translated\" \
         what is left for this kernel (xlated_prog_len / 8), \"machine code\" the bytes that it became \
         (jited_prog_len)."
    )?;
    for table in tables {
        table.write(to)?;
    }
    Ok(())
}

/// Some programs beside one workload, in all turns.
#[derive(Default)]
struct Counted {
    runs: u64,
    operations: u64,
    /// Of one operation, by turn, in units of an empty program's run.
    costs: Vec<f64>,
}

/// What was counted on one kernel.
struct Table<'a> {
    kernel: &'a str,
    samples: Vec<&'a Sample>,
    /// Nanoseconds of an empty program's run, by turn.
    units: Vec<f64>,
}

impl<'a> Table<'a> {
    fn of(machines: &'a Machines, kernel: &'a str) -> Result<Self> {
        let samples: Vec<_> =
            machines.samples.iter().filter(|sample| sample.kernel == kernel).collect();
        let unit = |turn| {
            let sample = samples.iter().find(|sample| {
                sample.turn == turn
                    && sample.attached == Attached::Empty
                    && sample.work == Work::Refused
            });
            let programs = &sample?.programs;
            let (runs, ns) =
                sum(programs.iter().filter(|program| program.kind == Kind::Tracepoint));
            (runs > 0).then(|| ratio(ns, runs))
        };
        let units = (0..machines.turns).map(unit).collect::<Option<_>>();
        let units = units.with_context(|| format!("no empty program ran on {kernel}"))?;
        Ok(Self { kernel, samples, units })
    }

    fn write(&self, to: &mut String) -> fmt::Result {
        let works = WORKS.map(|work| format!(" {} |", work.unit())).concat();
        writeln!(
            to,
            "\n### Linux {}\n\n\
             | program | verified | translated | machine code |{works}\n\
             | --- | --- | --- | --- |{}",
            self.kernel,
            " --- |".repeat(WORKS.len())
        )?;
        for attached in Attached::ALL {
            let all = |_: &Program| true;
            let Some(first) = self.first(attached) else { continue };
            let forms = if first.forms.is_empty() {
                String::new()
            } else {
                format!(" ({})", first.forms.join(", "))
            };
            self.write_row(to, attached, &format!("**{}**{forms}", attached.name()), all)?;
            let mut names: Vec<_> =
                first.programs.iter().map(|program| (&*program.name, program.kind)).collect();
            names.sort_by_key(|(name, kind)| (*name, kind.name()));
            names.dedup();
            for (name, kind) in names {
                let is_it = |program: &Program| program.name == name && program.kind == kind;
                let shown = if name.is_empty() { kind.name() } else { name };
                self.write_row(to, attached, shown, is_it)?;
            }
        }
        writeln!(to)?;
        for attached in [Attached::Auto, Attached::Kprobe, Attached::Tracepoint] {
            let is_free =
                |work: &Work| self.runs(attached, *work).is_some_and(|runs| runs < NO_RUN);
            let free: Vec<_> = WORKS.into_iter().filter(is_free).map(Work::unit).collect();
            if !free.is_empty() {
                writeln!(
                    to,
                    "- No program of `{}` runs for: {}.",
                    attached.name(),
                    free.join(", ")
                )?;
            }
        }
        Ok(())
    }

    /// Of all programs, for one operation; `None`: it was not measured.
    fn runs(&self, attached: Attached, work: Work) -> Option<f64> {
        let Counted { runs, operations, .. } = self.counted(attached, work, |_| true);
        (operations > 0).then(|| ratio(runs, operations))
    }

    /// How far the turns were apart at most: of what fdtrace took for an operation, the highest by the
    /// lowest.
    fn apart(&self) -> f64 {
        let forms = Attached::ALL.into_iter().filter(|attached| *attached != Attached::Empty);
        let counted = forms
            .flat_map(|attached| WORKS.map(|work| self.counted(attached, work, |_| true)))
            .filter(|counted| ratio(counted.runs, counted.operations) >= NO_RUN);
        let apart = counted.map(|Counted { costs, .. }| {
            let highest = costs.iter().copied().fold(f64::NAN, f64::max);
            highest / costs.iter().copied().fold(f64::NAN, f64::min)
        });
        apart.fold(1.0, f64::max)
    }

    fn counted(&self, attached: Attached, work: Work, of: impl Fn(&Program) -> bool) -> Counted {
        let mut counted = Counted::default();
        let is_it = |sample: &&&Sample| sample.attached == attached && sample.work == work;
        for sample in self.samples.iter().filter(is_it) {
            let (runs, ns) = sum(sample.programs.iter().filter(|program| of(program)));
            let operations = arrived(sample);
            counted.runs += runs;
            counted.operations += operations;
            let unit = self.units.get(sample.turn as usize).copied().unwrap_or(f64::NAN);
            counted.costs.push(ratio(ns, operations) / unit);
        }
        counted
    }

    /// The first sample that has all programs: one may be loaded when it is needed.
    fn first(&self, attached: Attached) -> Option<&'a Sample> {
        let of_it = self.samples.iter().filter(|sample| sample.attached == attached);
        of_it.rev().max_by_key(|sample| sample.programs.len()).copied()
    }

    fn write_row(
        &self,
        to: &mut String,
        attached: Attached,
        name: &str,
        of: impl Fn(&Program) -> bool,
    ) -> fmt::Result {
        let programs = self.first(attached).map_or(&[][..], |first| &first.programs);
        let total = |what: fn(&Program) -> u64| -> u64 {
            programs.iter().filter(|program| of(program)).map(what).sum()
        };
        write!(
            to,
            "| {name} | {} | {} | {} |",
            total(|program| program.verified),
            total(|program| program.translated),
            total(|program| program.jited_bytes)
        )?;
        for work in WORKS {
            write!(to, " {} |", self.cell(attached, work, &of))?;
        }
        writeln!(to)
    }

    fn cell(&self, attached: Attached, work: Work, of: impl Fn(&Program) -> bool) -> String {
        let Counted { runs: all_runs, operations, costs } = self.counted(attached, work, of);
        let Some(cost) = Spread::of(&costs) else { return "not measured".to_owned() };
        let each = ratio(all_runs, operations);
        match all_runs {
            0 => "0".to_owned(),
            // It had another reason than the work.
            runs if each < NO_RUN => format!("{runs} in {operations}"),
            // More digits than these would be others the next time.
            _ if cost.median < 10.0 => format!("{} · {:.1} ×", two_digits(each), cost.median),
            _ => format!("{} · {:.0} ×", two_digits(each), cost.median),
        }
    }
}

/// Operations that the kernel came to: a flood is sent faster than some machines can look at it.
fn arrived(sample: &Sample) -> u64 {
    let dropped = if sample.work == Work::Flood { sample.dropped } else { 0 };
    sample.operations.saturating_sub(dropped)
}

fn sum<'a>(programs: impl Iterator<Item = &'a Program>) -> (u64, u64) {
    programs.fold((0, 0), |(runs, ns), program| (runs + program.runs, ns + program.run_ns))
}

fn ratio(a: u64, b: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let (a, b) = (a as f64, b.max(1) as f64);
    a / b
}

/// Without zeros at the end.
fn two_digits(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, kind: Kind, runs: u64, run_ns: u64) -> Program {
        let name = name.to_owned();
        Program { id: 1, name, kind, translated: 30, jited_bytes: 200, verified: 40, runs, run_ns }
    }

    fn sample(attached: Attached, work: Work, programs: Vec<Program>) -> Sample {
        let (kernel, forms) = ("6.12".to_owned(), Vec::new());
        Sample { kernel, attached, forms, turn: 0, work, operations: 1000, dropped: 0, programs }
    }

    #[test]
    fn runs_and_times_are_of_one_operation() {
        let empty = program("", Kind::Tracepoint, 1000, 20_000);
        let samples = vec![
            sample(Attached::Empty, Work::Refused, vec![empty]),
            sample(Attached::Auto, Work::Getppid, vec![program("accept_fx", Kind::Tracing, 0, 0)]),
            sample(
                Attached::Auto,
                Work::Refused,
                vec![
                    program("accept_fx", Kind::Tracing, 1000, 50_000),
                    program("socket_fx", Kind::Tracing, 2, 100),
                ],
            ),
        ];
        let (date, commit) = (String::new(), String::new());
        let machines = Machines { date, commit, turns: 1, milliseconds: 1, samples };
        let text = section(&machines).unwrap();
        assert!(text.contains("### Linux 6.12\n"), "{text}");
        let row = "| accept_fx | 40 | 30 | 200 | 0 | not measured | 1 · 2.5 × |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("| not measured | 2 in 1000 | not measured |"), "{text}");
    }

    #[test]
    fn without_an_empty_program_there_is_no_unit() {
        let samples = vec![sample(Attached::Auto, Work::Refused, Vec::new())];
        let (date, commit) = (String::new(), String::new());
        let machines = Machines { date, commit, turns: 1, milliseconds: 1, samples };
        assert!(section(&machines).is_err());
    }

    #[test]
    fn the_section_takes_the_place_of_the_old_one() {
        let (old, new) = (format!("{HEADING}old\n### x\n"), format!("{HEADING}new\n"));
        assert_eq!(put("# Page\n", &new), format!("# Page\n\n{new}"));
        let page = format!("# Page\n\n{old}");
        assert_eq!(kept(&page), Some(&*old));
        assert_eq!(put(&page, &new), format!("# Page\n\n{new}"));
        let page = format!("# Page\n\n{old}\n## More\n");
        assert_eq!(put(&page, &new), format!("# Page\n\n{new}\n## More\n"));
        assert_eq!(kept("# Page\n"), None);
    }
}
