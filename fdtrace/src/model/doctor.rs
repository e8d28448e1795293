//! What `fdtrace doctor` finds out about a host.

use std::time::{Duration, SystemTime};

/// Everything a bug report needs.
#[derive(Clone, Debug, PartialEq)]
pub struct DoctorReport {
    /// When.
    pub at: SystemTime,
    /// fdtrace's version.
    pub version: &'static str,
    /// `uname -r`.
    pub kernel: String,
    /// The processor, as fdtrace was built for it.
    pub machine: &'static str,
    /// The answer.
    pub verdict: DoctorVerdict,
    /// What the host has, and what follows from that.
    pub facts: Vec<Fact>,
    /// Each probe, and what came of each of its forms.
    pub probes: Vec<ProbeExamined>,
    /// What stays hidden here.
    pub unseen: Vec<BlindSpot>,
    /// What the self-test made, and what was seen of it; or why there was none.
    pub self_test: Result<SelfTest, String>,
    /// What the programs cost while that ran; or why nobody knows.
    pub costs: Result<Vec<ProgramCost>, String>,
}

/// Whether the main job can be done: to see which process cannot accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoctorVerdict {
    /// Yes: it was tried.
    Works,
    /// It is attached, and why nobody tried whether it sees anything.
    Untested(String),
    /// It is attached, and the self-test shows that it does not see what it should.
    Blind(String),
    /// The host lacks something or forbids it; what, and what to do.
    Unsupported(String),
    /// This user may not; what is missing, and what to do.
    NotPermitted(String),
    /// Something else failed.
    Failed(String),
}

/// One thing about the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is about: a fixed set of words.
    pub name: &'static str,
    /// What it means for fdtrace.
    pub state: FactState,
    /// What it is like. May hold text of the host.
    pub value: String,
    /// What follows where it is not good.
    pub consequence: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// What a fact means for fdtrace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactState {
    /// Nothing is lost.
    Good,
    /// fdtrace works, with less.
    Less,
    /// fdtrace does not work.
    Bad,
    /// It could not be found out.
    Unknown,
}

/// A probe, and what came of trying its forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeExamined {
    /// The fact it observes.
    pub probe: &'static str,
    /// The form that `fdtrace` uses here; `sock_diag` where it is polled, `none` where it is not
    /// seen.
    pub used: &'static str,
    /// Whether it is attached only when asked for, by `--fds`.
    pub on_request: bool,
    /// Where it is attached; empty where it was not attached.
    pub points: Vec<String>,
    /// Each of its forms, the best first.
    pub forms: Vec<FormExamined>,
}

/// A form of a probe, tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormExamined {
    /// Its name.
    pub form: &'static str,
    /// What came of it.
    pub outcome: FormOutcome,
}

/// What came of trying a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormOutcome {
    /// It was attached, and detached again.
    Works,
    /// The host lacks something.
    Lacks(String),
    /// The host has everything and forbids it (EPERM, EACCES).
    Forbidden(String),
    /// The host could not do it for another reason.
    Failed(String),
    /// It was not tried.
    NotTried(String),
}

/// Something that fdtrace cannot see on this host, as it would run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlindSpot {
    /// What.
    pub what: &'static str,
    /// Why not.
    pub why: String,
    /// What would show it, where something would.
    pub remedy: Option<String>,
}

/// What a child did wrong on purpose, and what was counted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfTest {
    /// Whether it had a network namespace of its own, so that the host's counters stayed as they
    /// were; otherwise why not.
    pub own_namespace: Result<(), String>,
    /// How long it took, from the child's start to the last count.
    pub took: Duration,
    /// Each kind of failure.
    pub checks: Vec<Check>,
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The call, or `syn`.
    pub door: &'static str,
    /// As outputs name it: `EMFILE`, `accept_queue_full`.
    pub failure: &'static str,
    /// How many the child counted.
    pub made: u64,
    /// How many fdtrace counted; `None` where no program looks.
    pub seen: Option<u64>,
}

impl Check {
    /// Whether what was looked for was seen, to the last one.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.seen.is_none_or(|seen| seen == self.made)
    }
}

/// What a program cost, by the kernel's own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramCost {
    /// Its name in the object.
    pub program: String,
    /// How often it ran while the self-test did, for whatever process.
    pub runs: u64,
    /// How long that took.
    pub time: Duration,
    /// How many instructions the verifier went through; since 5.16.
    pub instructions: Option<u64>,
    /// Whether it runs as machine code.
    pub is_jited: Option<bool>,
}

impl ProgramCost {
    /// Nanoseconds of one run, rounded.
    #[must_use]
    pub fn nanos_per_run(&self) -> Option<u64> {
        let nanos = u64::try_from(self.time.as_nanos()).ok()?;
        nanos.checked_add(self.runs / 2)?.checked_div(self.runs)
    }
}

impl DoctorReport {
    /// The form of a probe; `none` where there is no such probe.
    #[must_use]
    pub fn form(&self, probe: &str) -> &'static str {
        self.probes.iter().find(|examined| examined.probe == probe).map_or("none", |one| one.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_of_a_run_is_rounded() {
        let cost = |runs, nanos| ProgramCost {
            program: "accept_fx".to_owned(),
            runs,
            time: Duration::from_nanos(nanos),
            instructions: None,
            is_jited: None,
        };
        assert_eq!(cost(0, 0).nanos_per_run(), None);
        assert_eq!(cost(3, 1000).nanos_per_run(), Some(333));
        assert_eq!(cost(2, 5).nanos_per_run(), Some(3));
    }

    #[test]
    fn what_nobody_looks_for_is_not_missed() {
        let check = |seen| Check { door: "syn", failure: "accept_queue_full", made: 5, seen };
        assert!(check(None).is_exact() && check(Some(5)).is_exact());
        assert!(!check(Some(4)).is_exact() && !check(Some(6)).is_exact());
    }
}
