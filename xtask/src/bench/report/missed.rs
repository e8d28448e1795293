//! What does not hold, what did not run, and why, as far as the figures tell.

use std::fmt::{self, Write as _};

use super::{Report, budgets::Budget};
use crate::bench::peers;

pub(super) fn write(report: &Report, budgets: &[Budget], to: &mut String) -> fmt::Result {
    writeln!(to, "\n## What is missed, and why\n")?;
    write_promises(budgets, to)?;
    if let Some(alone) = &report.alone
        && !alone.form.contains("fexit")
    {
        writeln!(
            to,
            "- **Forms that this kernel does not give**: fdtrace had {} here. Forms that need fentry, \
             fexit or kprobes are not timed: `cargo xtask bench-vm` counts what they do, in virtual \
             machines.",
            alone.form
        )?;
    }
    if let Some(alone) = &report.alone
        && alone.form.contains("tracepoint")
    {
        writeln!(
            to,
            "- **The tracepoints are never detached**, though each system call of the host pays for \
             them (the rows of getppid). A look at /proc once a second could tell which process is \
             close to its limit, but not what failed between two looks: the kernel counts no EMFILE, so \
             nobody could even say how much was missed. Packets are another matter: the kernel counts \
             what listeners refuse, so \"fdtrace\" looks at none until there is something to see, and \
             \"fdtrace --packets always\" is what that spares."
        )?;
    }
    let mut failed: Vec<_> = report.compared.iter().flat_map(|work| &work.failed).collect();
    failed.sort_unstable();
    failed.dedup_by_key(|(name, _)| *name);
    for (name, why) in failed {
        writeln!(to, "- **{name}** did not run: `{}`.{}", why.replace('`', "'"), wants(name))?;
    }
    for name in &report.missing {
        writeln!(to, "- **{name}** is not installed there, so it was not tried.{}", wants(name))?;
    }
    Ok(())
}

fn write_promises(budgets: &[Budget], to: &mut String) -> fmt::Result {
    let mut missed = budgets.iter().filter(|budget| !budget.holds()).peekable();
    if missed.peek().is_none() && !budgets.is_empty() {
        return writeln!(to, "- No promise is missed.");
    }
    for budget in missed {
        let Budget { what, promised, .. } = budget;
        let (measured, empty) = (budget.shown(), budget.shown_empty());
        let why = match budget.empty_holds() {
            Some(false) => format!(
                "empty programs at the same attach points give {empty} and miss it, too: the kernel \
                 charges that for any program there, on this kernel and in these forms"
            ),
            Some(true) => format!(
                "empty programs at the same attach points give {empty} and hold it: what is missed is \
                 fdtrace's own"
            ),
            None => "empty programs say nothing of it: why, these figures do not tell".to_owned(),
        };
        writeln!(to, "- **{what}**: {promised} is promised, {measured} was measured; {why}.")?;
    }
    Ok(())
}

/// What it would take, where that is known.
fn wants(name: &str) -> String {
    let wants = peers::WANTS.iter().find(|(peer, _)| name.starts_with(peer));
    wants.map(|(_, wants)| format!(" It needs {wants}.")).unwrap_or_default()
}
