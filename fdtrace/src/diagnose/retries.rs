//! What an acceptor does about its failures, where an operator should know: it decides what clients
//! get to feel.

use std::time::Duration;

use super::{
    behaviour::{AcceptFacts, behaviour},
    evidence::{
        THREADS, count, from, is_plain, lasting, percent, rate, remedy, several, share, span, text,
    },
};
use crate::model::{
    Acceptor, Behaviour, Cause, Certainty, Diagnosis, Evidence, Pid, Process, Remedy, When,
};

/// Says what it does; `None` where nothing stands out. `errno` is what accept failed with.
pub(super) fn diagnose(facts: &AcceptFacts<'_>, owner: &Process, errno: &str) -> Option<Diagnosis> {
    let name = format!("{}[{}]", owner.comm.to_text(), owner.id.pid);
    let behaviour = behaviour(facts)?;
    let mut evidence = vec![text("acceptor", behaviour.name())];
    let (cause, certainty, why, remedies, unknown) = match behaviour {
        Behaviour::BusyLoop { per_second, cpu } => {
            evidence.push(rate("failed_calls", per_second, "calls"));
            let (words, of_thread) = burns(facts.acceptor, cpu);
            evidence.extend(of_thread);
            let why = format!(
                "{name} tries again at once after each {errno}, {per_second:.0} times a second\
                 {words}"
            );
            (Cause::BusyLoop, Certainty::Certain, why, vec![wait_instead()], Vec::new())
        }
        Behaviour::BackingOff { longest } => {
            evidence.push(lasting("longest_pause", longest));
            let why = format!(
                "{name} waits after each {errno}, longer every time, up to {} so far: so long \
                 clients wait on, when there are descriptors again",
                span(longest)
            );
            (Cause::BacksOff, Certainty::Certain, why, Vec::new(), Vec::new())
        }
        Behaviour::Pausing { pause } => {
            evidence.push(lasting("pause", pause));
            let why = format!(
                "{name} waits {} after each {errno}: up to so long clients wait on, when there are \
                 descriptors again",
                span(pause)
            );
            (Cause::BacksOff, Certainty::Certain, why, Vec::new(), Vec::new())
        }
        Behaviour::DrainsWhileFailing => {
            let failed = failed(facts);
            evidence.push(count("failed_calls", failed, "calls"));
            let why = format!(
                "accept fails with {errno} again and again, and yet the queue of {name} is empty at \
                 every look: it takes clients only to close them at once (by a spare descriptor). \
                 Up to {} in {} got a closed connection, which the kernel counts as accepted",
                several(failed, "client", "clients"),
                span(over(facts)),
            );
            let unknown = vec![
                "whether it closes them: connections that are accepted are not looked at".into(),
            ];
            (Cause::DrainsWhileFailing, Certainty::Likely, why, Vec::new(), unknown)
        }
        Behaviour::GaveUp { silent } => {
            evidence.push(lasting("silent_for", silent));
            let waiting = facts.queue.last().map_or(0, |sample| sample.length);
            evidence.push(from(count("accept_queue", waiting.into(), "connections"), "sock_diag"));
            let clients = several(waiting.into(), "client waits", "clients wait");
            let why = format!(
                "{name} gave up: since its last {errno}, {} ago, it has taken nobody, and {clients}",
                span(silent)
            );
            let remedies = vec![restart(owner), try_again()];
            (Cause::GaveUp, Certainty::Certain, why, remedies, Vec::new())
        }
        _ => return None,
    };
    Some(Diagnosis { cause, certainty, why, evidence, remedies, unknown })
}

/// The thread that burns a core with it.
fn burns(acceptor: Option<&Acceptor>, cpu: Option<f64>) -> (String, Vec<Evidence>) {
    // The busiest come first.
    let Some((thread, cpu)) = acceptor.and_then(|acceptor| acceptor.threads.first()).zip(cpu)
    else {
        return (String::new(), Vec::new());
    };
    let thread = format!("{}[{}]", thread.comm.to_text(), thread.tid.0);
    let words = format!("; thread {thread} uses {} of a core", percent(cpu));
    let evidence = vec![
        from(text("thread", thread), THREADS),
        from(share("thread_cpu", cpu, "of one core"), THREADS),
    ];
    (words, evidence)
}

fn failed(facts: &AcceptFacts<'_>) -> u64 {
    let ends = facts.failures.last().zip(facts.failures.first());
    ends.map_or(0, |(last, first)| last.count.saturating_sub(first.count) + 1)
}

fn over(facts: &AcceptFacts<'_>) -> Duration {
    let ends = facts.failures.last().zip(facts.failures.first());
    ends.map_or(Duration::ZERO, |(last, first)| last.at.since(first.at))
}

fn wait_instead() -> Remedy {
    let text = "in the program: after EMFILE or ENFILE, do not poll the listener until a \
                descriptor was closed, or for some 100 ms";
    remedy(When::ForGood, text, None)
}

fn restart(owner: &Process) -> Remedy {
    let Pid(pid) = owner.id.pid;
    let unit = owner.unit.as_deref();
    let unit = unit.filter(|unit| unit.ends_with(".service") && is_plain(unit));
    match unit {
        Some(unit) => remedy(
            When::Now,
            "restart it: it will not accept again by itself",
            Some(format!("systemctl restart {unit}")),
        ),
        None => remedy(
            When::Now,
            format!("restart process {pid}: it will not accept again by itself"),
            None,
        ),
    }
}

fn try_again() -> Remedy {
    let text = "in the program: take EMFILE and ENFILE of accept for what passes, and try again a \
                little later";
    remedy(When::ForGood, text, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        diagnose::fixtures::{at, single_failures},
        model::{BootTime, Comm, FailureSample, ProcessId, QueueSample, Thread, ThreadState, Tid},
    };

    fn owner(unit: Option<&str>) -> Process {
        let id = ProcessId { pid: Pid(7), started: at(0) };
        let unit = unit.map(str::to_owned);
        Process { unit, ..Process::unread(id, Comm::from_bytes(b"srv")) }
    }

    fn of(failures: &[FailureSample], queue: &[u32], later: u64) -> Diagnosis {
        let sample = |(second, length): (u64, &u32)| QueueSample {
            at: at(1_000 + second * 1_000),
            length: *length,
        };
        let queue: Vec<_> = (0..).zip(queue).map(sample).collect();
        let last = failures.last().unwrap().at;
        let facts = AcceptFacts {
            acceptor: None,
            failures,
            queue: &queue,
            now: BootTime(last.0 + Duration::from_secs(later)),
            is_alone: Some(true),
        };
        diagnose(&facts, &owner(None), "EMFILE").unwrap()
    }

    #[test]
    fn each_is_told_in_words() {
        let cases = [
            (
                of(&single_failures(&[5, 10, 20, 40, 80, 160, 320, 640, 1_000]), &[], 0),
                Cause::BacksOff,
                "srv[7] waits after each EMFILE, longer every time, up to 1 s so far: so long \
                 clients wait on, when there are descriptors again",
            ),
            (
                of(&single_failures(&[1_000; 5]), &[], 0),
                Cause::BacksOff,
                "srv[7] waits 1 s after each EMFILE: up to so long clients wait on, when there are \
                 descriptors again",
            ),
            (
                of(&single_failures(&[700, 150, 900, 1_200]), &[0, 0, 0], 0),
                Cause::DrainsWhileFailing,
                "accept fails with EMFILE again and again, and yet the queue of srv[7] is empty at \
                 every look: it takes clients only to close them at once (by a spare descriptor). \
                 Up to 5 clients in 2 s got a closed connection, which the kernel counts as \
                 accepted",
            ),
            (
                of(&single_failures(&[]), &[1, 1, 4, 9], 20),
                Cause::GaveUp,
                "srv[7] gave up: since its last EMFILE, 20 s ago, it has taken nobody, and 9 \
                 clients wait",
            ),
        ];
        for (found, cause, why) in cases {
            assert_eq!((found.cause, found.why.as_str()), (cause, why));
        }
    }

    #[test]
    fn a_busy_loop_names_its_thread() {
        let storm = [
            FailureSample { at: at(1_000), count: 1 },
            FailureSample { at: at(2_000), count: 80_001 },
        ];
        let thread = Thread {
            tid: Tid(8),
            comm: Comm::from_bytes(b"loop"),
            state: ThreadState::Running,
            is_steady: true,
            cpu: Some(0.97),
            starved: None,
            wchan: None,
            syscall: None,
        };
        let acceptor = Acceptor {
            pid: Pid(7),
            window: Duration::from_millis(100),
            thread_count: 1,
            threads: vec![thread],
            tracer: None,
            unknown: Vec::new(),
        };
        let (failures, now) = (&storm[..], at(2_000));
        let facts =
            AcceptFacts { acceptor: Some(&acceptor), failures, now, ..AcceptFacts::default() };
        let found = diagnose(&facts, &owner(None), "EMFILE").unwrap();
        assert_eq!(
            found.why,
            "srv[7] tries again at once after each EMFILE, 80000 times a second; thread loop[8] \
             uses 97 % of a core"
        );
        assert_eq!(found.cause, Cause::BusyLoop);
    }

    #[test]
    fn what_gave_up_is_restarted_by_its_unit() {
        let command = restart(&owner(Some("srv.service"))).command;
        assert_eq!(command.as_deref(), Some("systemctl restart srv.service"));
        assert_eq!(restart(&owner(Some("session-1.scope"))).command, None);
    }
}
