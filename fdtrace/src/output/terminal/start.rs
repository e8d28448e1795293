//! The first line: what is attached.

use super::line::GAP;
use crate::model::{ProbeReport, Started};

/// Probes that are one word where they all have the same form.
const GROUPS: [(&str, &[&str]); 2] =
    [("calls", &["accept", "socket", "socketpair", "listen"]), ("queues", &["syn", "ack"])];

/// `fdtrace 0.1.0  Linux 6.12.117  calls: fexit  queues: fentry  Ctrl-C for a summary`
pub(super) fn started(started: &Started) -> String {
    let mut parts =
        vec![format!("fdtrace {}", started.version), format!("Linux {}", started.kernel)];
    parts.extend(forms(&started.probes));
    parts.push("Ctrl-C for a summary".to_owned());
    parts.join(GAP) + "\n"
}

/// `seen by calls: fexit  queues: fentry`: how what the summary tells was observed.
pub(super) fn seen_by(probes: &[ProbeReport]) -> String {
    format!("seen by {}\n", forms(probes).join(GAP))
}

fn forms(probes: &[ProbeReport]) -> Vec<String> {
    let words = by_form(probes).into_iter().map(|(form, probes)| {
        let group = GROUPS.iter().find(|(_, members)| *members == probes);
        let probes = group.map_or_else(|| probes.join(", "), |(name, _)| (*name).to_owned());
        match form {
            "sock_diag" => format!("{probes}: polled, at most"),
            "none" => format!("{probes}: not seen"),
            _ => format!("{probes}: {form}"),
        }
    });
    words.collect()
}

/// Members of one group with the same form together, in the order of their first.
fn by_form(probes: &[ProbeReport]) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut forms: Vec<(&str, Vec<&str>)> = Vec::new();
    for ProbeReport { probe, form, .. } in probes {
        let group = GROUPS.iter().find(|(_, members)| members.contains(probe));
        let same = |(known, probes): &&mut (&str, Vec<&str>)| {
            known == form
                && group
                    .is_some_and(|(_, members)| probes.iter().all(|probe| members.contains(probe)))
        };
        match forms.iter_mut().find(same) {
            Some((_, probes)) => probes.push(probe),
            None => forms.push((form, vec![probe])),
        }
    }
    forms
}
