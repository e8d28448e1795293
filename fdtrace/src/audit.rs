//! `fdtrace audit`: wires enrich → diagnose → output for one look at every listener's process.

use std::{io::Write, path::Path};

use crate::{
    cli::AuditSettings,
    diagnose::{Group, groups, worst_first},
    enrich::{provenance, read_clocks},
    listeners::{self, Survey},
    model::{AuditReport, Audited, BootTime, Provenance},
    output::{Colour, audit_json, audit_text},
};

/// Writes what is wrong, and says whether that is as bad as `--fail-on`.
pub fn audit(
    settings: &AuditSettings,
    colour: Colour,
    output: &mut dyn Write,
) -> anyhow::Result<bool> {
    let clock = read_clocks();
    let report = report(settings, clock.boot)?;
    let bytes = if settings.json {
        audit_json(&report, &clock)?
    } else {
        audit_text(&report, colour).into_bytes()
    };
    let is_read = listeners::write(output, &bytes)?;
    Ok(is_read && settings.fail_on.is_some_and(|level| report.has(level)))
}

fn report(settings: &AuditSettings, at: BootTime) -> anyhow::Result<AuditReport> {
    let survey = listeners::survey(Path::new("/proc"), |_| true)?;
    let Survey { listeners, namespaces, own_netns, unseen, sees_all, mut people } = survey;
    listeners::tell(sees_all, &listeners);
    let count = listeners.len() as u64;
    let mut audited: Vec<Audited> = groups(&listeners, |id| people.fds(id))
        .into_iter()
        .map(|group: Group| {
            let provenances: Vec<Provenance> =
                group.looks.iter().map(|fds| provenance::read(Path::new("/"), fds.pid)).collect();
            group.audited(&provenances, own_netns)
        })
        .collect();
    worst_first(&mut audited);
    Ok(AuditReport {
        at,
        audited,
        all: settings.all,
        listeners: count,
        namespaces,
        own_netns,
        unseen,
    })
}
