//! `fdtrace doctor`: wires kernel → decode → output for one look at what this host allows.

mod child;
mod self_test;

use std::{
    io::{self, Write},
    path::Path,
    time::SystemTime,
};

use anyhow::Context as _;

pub use self::child::misbehave;
use crate::{
    cli::DoctorSettings,
    enrich::{HostListeners, host_listeners},
    kernel::{Examination, HostError, Kernel, Options, Timing},
    model::{
        Check, DoctorReport, DoctorVerdict, Fact, FactState, ProbeExamined, ProgramCost, SelfTest,
    },
    output::{Colour, doctor_json, doctor_text},
};

/// Examines the host, writes the report, and says whether the main job can be done. Must run before
/// other threads exist and inside a tokio runtime.
pub fn examine(
    settings: &DoctorSettings,
    colour: Colour,
    output: &mut dyn Write,
) -> anyhow::Result<DoctorVerdict> {
    let report = report(settings);
    let bytes = if settings.json {
        doctor_json(&report)?
    } else {
        doctor_text(&report, colour).into_bytes()
    };
    match output.write_all(&bytes).and_then(|()| output.flush()) {
        Ok(()) => Ok(report.verdict),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(report.verdict),
        Err(error) => Err(error).context("cannot write the output"),
    }
}

fn report(settings: &DoctorSettings) -> DoctorReport {
    let options = Options {
        btf: settings.btf.clone(),
        slots: fdtrace_common::DEFAULT_SLOTS,
        ring_bytes: fdtrace_common::DEFAULT_RING_BYTES,
        // Any share will do: the verifier then looks at all of the programs.
        gauge_share: 80,
        request: settings.request.clone(),
    };
    let mut examination = Examination::new(&options);
    let mut facts = examination.facts();
    facts.push(sock_diag());
    let attached = attach(&options, &mut examination.probes);
    let Attached { verdict, self_test, costs, tells_skips } = attached;
    // Where nothing is attached nothing is seen, and that is said first.
    let is_attached = matches!(
        verdict,
        DoctorVerdict::Works | DoctorVerdict::Untested(_) | DoctorVerdict::Blind(_)
    );
    let unseen = if is_attached { examination.unseen(tells_skips) } else { Vec::new() };
    DoctorReport {
        at: SystemTime::now(),
        version: env!("CARGO_PKG_VERSION"),
        kernel: examination.kernel().to_owned(),
        machine: std::env::consts::ARCH,
        verdict,
        facts,
        unseen,
        probes: examination.probes,
        self_test,
        costs,
    }
}

/// What came of attaching as `fdtrace` does.
struct Attached {
    verdict: DoctorVerdict,
    self_test: Result<SelfTest, String>,
    costs: Result<Vec<ProgramCost>, String>,
    /// Whether the kernel counts the runs that it skips; where nothing is attached, nobody asks.
    tells_skips: bool,
}

/// Attaches, notes the forms, and runs the self-test.
fn attach(options: &Options, probes: &mut [ProbeExamined]) -> Attached {
    let mut kernel = match Kernel::attach(options) {
        Ok(kernel) => kernel,
        Err(error) => {
            let why = "nothing is attached".to_owned();
            let verdict = refusal(&error);
            let (self_test, costs) = (Err(why.clone()), Err(why));
            return Attached { verdict, self_test, costs, tells_skips: true };
        }
    };
    for attached in kernel.probes() {
        if let Some(probe) = probes.iter_mut().find(|probe| probe.probe == attached.probe) {
            probe.used = attached.form;
            probe.points.clone_from(&attached.points);
        }
    }
    let timing = Timing::start();
    let self_test = self_test::run(&mut kernel).map_err(|error| format!("{error:#}"));
    let costs = timing.map(|_| kernel.costs()).map_err(|error| format!("{error:#}"));
    let verdict = judge(self_test.as_ref());
    Attached { verdict, self_test, costs, tells_skips: kernel.skipped_runs().is_some() }
}

/// A self-test that could not be run says nothing against the programs that are attached.
fn judge(self_test: Result<&SelfTest, &String>) -> DoctorVerdict {
    let test = match self_test {
        Ok(test) => test,
        Err(why) => return DoctorVerdict::Untested(why.clone()),
    };
    let missed: Vec<_> = test
        .checks
        .iter()
        .filter(|check| !check.is_exact())
        .map(|check| {
            let Check { door, failure, made, .. } = check;
            format!("{} of {made} {door} {failure}", check.seen.unwrap_or(0))
        })
        .collect();
    if missed.is_empty() { DoctorVerdict::Works } else { DoctorVerdict::Blind(missed.join(", ")) }
}

fn refusal(error: &anyhow::Error) -> DoctorVerdict {
    let text = format!("{error:#}");
    match error.downcast_ref::<HostError>() {
        Some(HostError::NotPermitted(_)) => DoctorVerdict::NotPermitted(text),
        Some(HostError::Unsupported(_)) => DoctorVerdict::Unsupported(text),
        None => DoctorVerdict::Failed(text),
    }
}

/// Where limits and drops of listeners come from.
fn sock_diag() -> Fact {
    let HostListeners { namespaces, .. } = host_listeners(Path::new("/proc"));
    let fallback = match namespaces.first().map(|own| &own.tcp) {
        Some(Ok(tcp)) => tcp.fallback.as_ref().map(ToString::to_string),
        Some(Err(error)) => Some(error.to_string()),
        None => Some("no network namespace can be looked into".to_owned()),
    };
    let fact = Fact {
        name: "sock_diag",
        state: FactState::Good,
        value: "the kernel lists its listeners".to_owned(),
        consequence: None,
        remedy: None,
    };
    match fallback {
        None => fact,
        Some(why) => Fact {
            state: FactState::Less,
            value: why,
            consequence: Some(
                "`fdtrace listeners` shows no limits of accept queues, and refused clients cannot \
                 be polled"
                    .to_owned(),
            ),
            remedy: Some("modprobe tcp_diag".to_owned()),
            ..fact
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_miss_is_named() {
        let check = |made, seen| Check { door: "accept", failure: "EMFILE", made, seen };
        let judge =
            |checks| judge(Ok(&SelfTest { own_namespace: Ok(()), took: Duration::ZERO, checks }));
        assert_eq!(judge(vec![check(7, Some(7)), check(5, None)]), DoctorVerdict::Works);
        let missed = judge(vec![check(7, Some(7)), check(5, Some(4))]);
        assert_eq!(missed, DoctorVerdict::Blind("4 of 5 accept EMFILE".to_owned()));
    }

    #[test]
    fn what_was_not_tested_is_not_said_to_work() {
        let why = "start a child: No such file".to_owned();
        assert_eq!(judge(Err(&why)), DoctorVerdict::Untested(why));
    }

    #[test]
    fn each_error_is_a_verdict() {
        let text = || "x".to_owned();
        let unsupported = anyhow::Error::new(HostError::Unsupported(text()));
        assert_eq!(refusal(&unsupported), DoctorVerdict::Unsupported(text()));
        let forbidden = anyhow::Error::new(HostError::NotPermitted(text()));
        assert_eq!(refusal(&forbidden), DoctorVerdict::NotPermitted(text()));
        assert_eq!(refusal(&anyhow::anyhow!("x")), DoctorVerdict::Failed(text()));
    }
}
