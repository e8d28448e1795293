//! `fs.nr_open`, the ceiling of every process: it was lowered below a limit, or a limit stands at
//! it.

use super::{
    Bite, Failed, LimitFacts, limit, limits_as_evidence,
    remedy::{self, remedy},
    words::{at, the_limit},
};
use crate::model::{Cause, Certainty, Diagnosis, Evidence, Value, When};

pub(super) fn diagnose(facts: &LimitFacts<'_>, bite: Bite) -> Option<Diagnosis> {
    let sysctl = &facts.provenance.system.nr_open;
    let nr_open = sysctl.value?;
    // The kernel checks a limit against it when it is set, and a descriptor when it is taken
    // (kernel/sys.c do_prlimit, fs/file.c expand_files).
    if bite.soft < nr_open {
        return None;
    }
    // Where nobody ran out, a limit as high as possible is none that is low.
    if facts.failed == Failed::Nothing && bite.soft == nr_open {
        return None;
    }
    let is_above = bite.soft > nr_open;
    let why = if is_above {
        format!(
            "fs.nr_open is {nr_open}, lower than the process's {}: it was lowered after the \
             process got its limit, and no descriptor above it can be had",
            the_limit(bite)
        )
    } else {
        format!("{}, which is fs.nr_open: no process can have a higher one", the_limit(bite))
    };
    let mut evidence = limits_as_evidence(facts, bite);
    evidence.push(Evidence {
        fact: "nr_open",
        value: Value::Count(nr_open),
        unit: Some("file descriptors"),
        source: Some("/proc/sys/fs/nr_open".into()),
    });
    if let Some(configured) = &sysctl.configured {
        evidence.push(Evidence {
            fact: "nr_open_configured",
            value: Value::Count(configured.value),
            unit: Some("file descriptors"),
            source: Some(at(&configured.file)),
        });
    }
    let target = if is_above { bite.soft } else { nr_open.saturating_mul(2) };
    let mut remedies = remedy::sysctl("fs.nr_open", target, sysctl.configured.as_ref());
    if !is_above && let Some(own) = facts.provenance.chain.first() {
        remedies.insert(
            1,
            remedy(
                When::Now,
                format!(
                    "then raise the process's limits to {}; that needs CAP_SYS_RESOURCE in the \
                 initial user namespace",
                    limit(target)
                ),
                Some(format!("prlimit --pid {} --nofile={target}:{target}", own.id.pid)),
            ),
        );
    }
    Some(Diagnosis {
        cause: Cause::NrOpen,
        certainty: Certainty::Certain,
        why,
        evidence,
        remedies,
        unknown: facts.provenance.unknown.clone(),
    })
}
