//! Every form of every probe, attached once and taken back.

use crate::{
    kernel::{
        HostError,
        attach::{Attacher, is_forbidden},
        load::Loaded,
        plan::usable,
        probes::{Form, FormKind, NO_FORM, PROBES, Probe, Wanted},
        support::Support,
    },
    model::{FormExamined, FormOutcome, ProbeExamined},
};

/// Tries each.
pub(super) fn try_all(loaded: &mut Loaded) -> anyhow::Result<Vec<ProbeExamined>> {
    let Loaded { ebpf, support, ids, .. } = loaded;
    let mut attacher = Attacher::new(ebpf, ids)?;
    Ok(examined(|form| attempt(form, &mut attacher, support)))
}

fn attempt(form: &Form, attacher: &mut Attacher<'_>, support: &Support) -> FormOutcome {
    let steps = match usable(form, support) {
        Ok(mut steps) => {
            // One program at many system calls: their tracepoints are there, as tracefs says, and
            // taking back each of them has to wait for every CPU.
            steps.dedup_by_key(|step| step.program);
            steps
        }
        Err(refused) => return FormOutcome::Lacks(refused.why),
    };
    match attacher.form(form.kind, &steps, support) {
        Ok(()) => {
            attacher.take_back(0);
            FormOutcome::Works
        }
        Err((_, error)) if is_forbidden(&error) => FormOutcome::Forbidden(error.to_string()),
        Err((_, error)) => FormOutcome::Failed(error.to_string()),
    }
}

/// What can be said where this user may not try.
pub(super) fn untried(support: Result<&Support, &HostError>) -> Vec<ProbeExamined> {
    let not = |why: &str| FormOutcome::NotTried(why.to_owned());
    examined(|form| match support {
        // It is for root to look into tracefs.
        Ok(_) if form.kind == FormKind::Tracepoint => not("not permitted"),
        Ok(support) => match usable(form, support) {
            Ok(_) => not("not permitted"),
            Err(refused) => FormOutcome::Lacks(refused.why),
        },
        Err(_) => not("not permitted, and there is no usable BTF"),
    })
}

/// Where the programs cannot be loaded at all.
pub(super) fn impossible() -> Vec<ProbeExamined> {
    examined(|_| FormOutcome::NotTried("the programs cannot be loaded".to_owned()))
}

fn examined(mut outcome: impl FnMut(&Form) -> FormOutcome) -> Vec<ProbeExamined> {
    let mut examine = |probe: &'static Probe| {
        let form = |form: &Form| FormExamined { form: form.kind.name(), outcome: outcome(form) };
        let forms: Vec<_> = probe.forms.iter().map(form).collect();
        let on_request = probe.wanted == Wanted::ForFds;
        // What would be used; the others are known once they are attached.
        let best = forms.iter().find(|form| form.outcome == FormOutcome::Works);
        let used = best.filter(|_| on_request).map_or(NO_FORM, |best| best.form);
        ProbeExamined { probe: probe.name, used, on_request, points: Vec::new(), forms }
    };
    PROBES.iter().map(&mut examine).collect()
}
