//! Which form each probe gets: a pure function of what the host supports and what was asked for.

use super::{
    probes::{Form, FormKind, PROBES, Probe, Step, Wanted},
    support::Support,
};

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The forms that may be used, by probe; the last that is about a probe counts.
    pub forms: Vec<FormRequest>,
    /// Whether every call that creates a descriptor is to be seen.
    pub fds: bool,
}

/// A form asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormRequest {
    /// The probe; `None` is every probe.
    pub probe: Option<String>,
    /// The form.
    pub form: FormChoice,
}

/// Forms that can be asked for. A probe that has no such form uses what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormChoice {
    /// The best the host allows.
    Auto,
    /// `fexit`, `fentry`
    Fexit,
    /// `kprobe`
    Kprobe,
    /// `tracepoint`, `tp_btf`, `cgroup_skb`
    Tracepoint,
}

impl FormChoice {
    const fn allows(self, kind: FormKind) -> bool {
        match self {
            Self::Auto => true,
            Self::Fexit => matches!(kind, FormKind::Fexit | FormKind::Fentry),
            Self::Kprobe => matches!(kind, FormKind::Kprobe),
            Self::Tracepoint => {
                matches!(kind, FormKind::Tracepoint | FormKind::TpBtf | FormKind::CgroupSkb)
            }
        }
    }
}

/// Names of the probes, in the order of outputs.
pub fn probe_names() -> impl Iterator<Item = &'static str> {
    PROBES.iter().map(|probe| probe.name)
}

/// Why a form is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The form.
    pub form: &'static str,
    /// Why, for a person.
    pub why: String,
    /// The host forbids it, rather than lacks it.
    pub is_forbidden: bool,
}

/// What is done for one probe.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) probe: &'static Probe,
    /// The form chosen, with the steps that this host has.
    pub(super) chosen: Option<(FormKind, Vec<Step>)>,
    /// Better forms, and why they are not used.
    pub(super) refused: Vec<Refused>,
    /// A form was asked for by name.
    pub(super) is_forced: bool,
}

/// What is done for every probe that is wanted.
#[derive(Debug)]
pub(super) struct AttachPlan {
    pub(super) probes: Vec<Planned>,
}

impl AttachPlan {
    pub(super) fn from_support(support: &Support, request: &Request) -> Self {
        let wanted = PROBES.iter().filter(|probe| probe.wanted != Wanted::ForFds || request.fds);
        Self { probes: wanted.map(|probe| Planned::new(probe, support, request)).collect() }
    }
}

impl Planned {
    fn new(probe: &'static Probe, support: &Support, request: &Request) -> Self {
        let asked = request
            .forms
            .iter()
            .rev()
            .find(|asked| asked.probe.as_ref().is_none_or(|name| name == probe.name));
        let choice = asked.map_or(FormChoice::Auto, |asked| asked.form);
        let mut refused = Vec::new();
        for form in probe.forms.iter().filter(|form| choice.allows(form.kind)) {
            match usable(form, support) {
                Ok(steps) => {
                    let chosen = Some((form.kind, steps));
                    return Self { probe, chosen, refused, is_forced: choice != FormChoice::Auto };
                }
                Err(why) => refused.push(why),
            }
        }
        Self { probe, chosen: None, refused, is_forced: choice != FormChoice::Auto }
    }
}

/// The steps of a form on this host, or what stands against it.
fn usable(form: &Form, support: &Support) -> Result<Vec<Step>, Refused> {
    let refuse = |why: String, is_forbidden| Refused { form: form.kind.name(), why, is_forbidden };
    let mut steps = Vec::new();
    for step in form.steps {
        let step = support.resolve(*step);
        if let Some(against) = support.against(step.point) {
            return Err(refuse(against.why.clone(), against.is_forbidden));
        }
        match support.missing(step.point) {
            None => steps.push(step),
            Some(_) if support.may_lack(step) => {}
            Some(why) => return Err(refuse(why, false)),
        }
    }
    if steps.is_empty() {
        return Err(refuse("this kernel has none of its attach points".to_owned(), false));
    }
    Ok(steps)
}
