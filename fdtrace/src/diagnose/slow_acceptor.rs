//! The acceptor does not keep up, or stands still.

use super::{
    behaviour::{AcceptFacts, WHOLE_CORE, behaviour},
    blocked::Wait,
    evidence::{THREADS, from, is_plain, percent, remedy, share, text},
    queue::{Occupancy, QueueFacts},
};
use crate::model::{
    Acceptor, Behaviour, Cause, Certainty, Comm, Diagnosis, Evidence, Pid, Process, Remedy, Thread,
    ThreadState, Tid, When,
};

/// Of the time: what has no core for so long is mostly kept from running.
const HALF: f64 = 0.5;
/// And for less than this, any scheduler keeps a thread waiting.
const NOTICED: f64 = 0.1;

/// No owner can accept anything. `acceptors` are the threads of those that were looked at.
pub(super) fn standing(owners: &[Process], acceptors: &[Acceptor]) -> Option<Diagnosis> {
    // A master holds the listener for its workers, and does not accept.
    let workers = acceptors.iter().filter(|acceptor| !only_manages(acceptor));
    let found: Vec<(Pid, Option<Behaviour>)> =
        workers.map(|acceptor| (acceptor.pid, stands(acceptor))).collect();
    let all = found.into_iter().map(|(pid, stands)| Some((pid, stands?)));
    let found: Vec<(Pid, Behaviour)> = all.collect::<Option<_>>()?;
    let (pid, behaviour) = found.first()?;
    // Of a shared queue, only all owners tell.
    if acceptors.len() < owners.len() {
        return None;
    }
    let owner = owners.iter().find(|owner| owner.id.pid == *pid);
    let (why, certainty) = words(*pid, behaviour);
    let mut remedies = Vec::new();
    for (pid, behaviour) in &found {
        let owner = owners.iter().find(|owner| owner.id.pid == *pid);
        for remedy in for_standing(*pid, behaviour, owner) {
            if !remedies.contains(&remedy) {
                remedies.push(remedy);
            }
        }
    }
    let others = found.len() - 1;
    let why = if others > 0 { format!("{why}, and {others} more like it") } else { why };
    let mut evidence = vec![from(text("acceptor", behaviour.name()), THREADS)];
    evidence.extend(wait_channel(behaviour));
    if let Some(owner) = owner {
        evidence.push(text("acceptor_name", owner.comm.to_text()));
    }
    Some(Diagnosis {
        cause: Cause::SlowAcceptor,
        certainty,
        why,
        evidence,
        remedies,
        unknown: match behaviour {
            Behaviour::Blocked { wchan, .. } => {
                Wait::of(wchan.as_deref()).unknown().into_iter().collect()
            }
            _ => Vec::new(),
        },
    })
}

fn stands(acceptor: &Acceptor) -> Option<Behaviour> {
    behaviour(&AcceptFacts { acceptor: Some(acceptor), ..AcceptFacts::default() })
        .filter(|behaviour| !matches!(behaviour, Behaviour::CpuBound { .. }))
}

/// Whether every thread waits for signals or children, as the masters of pre-fork servers do.
fn only_manages(acceptor: &Acceptor) -> bool {
    const MANAGING: [&str; 5] = ["rt_sigsuspend", "rt_sigtimedwait", "pause", "wait4", "waitid"];
    let mut alive = acceptor.alive().peekable();
    let manages = |thread: &Thread| {
        let name = thread.syscall.as_ref().and_then(|syscall| syscall.name);
        thread.state == ThreadState::Sleeping && name.is_some_and(|name| MANAGING.contains(&name))
    };
    acceptor.is_complete() && alive.peek().is_some() && alive.all(manages)
}

/// It accepts, but not as fast as clients come.
pub(super) fn behind(facts: &QueueFacts<'_>) -> Option<Diagnosis> {
    let occupancy = Occupancy::of(facts.samples, facts.queue.limit);
    // Bursts are no matter of the acceptor.
    if occupancy == Some(Occupancy::Bursts) {
        return None;
    }
    if let Some((tid, comm, cpu)) = facts.acceptors.iter().find_map(bound) {
        return Some(cpu_bound(facts, occupancy, tid, &comm, cpu));
    }
    if let Some(starving) = facts.acceptors.iter().find_map(starved) {
        return Some(starving);
    }
    (occupancy? == Occupancy::Always).then(|| Diagnosis {
        cause: Cause::SlowAcceptor,
        certainty: Certainty::Likely,
        why: "the accept queue is full all the time: clients come faster than they are accepted, \
              and a longer queue would only let them wait longer"
            .to_owned(),
        evidence: Vec::new(),
        remedies: vec![more_acceptors()],
        unknown: vec![if facts.acceptors.is_empty() {
            "what the acceptor's threads do".to_owned()
        } else {
            format!("what keeps the acceptor: no thread of it uses a core up{}", busiest(facts))
        }],
    })
}

/// `; the busiest, web[7], runs for 70 % of the time and otherwise waits for something`, where that
/// is a large part of a core: a thread between idle and busy is not said to be either.
fn busiest(facts: &QueueFacts<'_>) -> String {
    let threads = facts.acceptors.iter().flat_map(|acceptor| &acceptor.threads);
    let busiest = threads
        .filter_map(|thread| Some((thread, thread.cpu.filter(|cpu| *cpu >= HALF)?)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b));
    let Some((thread, cpu)) = busiest else { return String::new() };
    let rest = match thread.starved {
        None => "; whether it was kept from a core, the kernel does not tell".to_owned(),
        Some(part) if part < NOTICED => ", and otherwise waits for something else".to_owned(),
        Some(part) => format!(
            ", is ready and gets no core for {}, and otherwise waits for something else",
            percent(part)
        ),
    };
    let (name, tid) = (thread.comm.to_text(), thread.tid.0);
    format!("; the busiest, {name}[{tid}], runs for {} of the time{rest}", percent(cpu))
}

fn bound(acceptor: &Acceptor) -> Option<(Tid, Comm, f64)> {
    match behaviour(&AcceptFacts { acceptor: Some(acceptor), ..AcceptFacts::default() })? {
        Behaviour::CpuBound { tid, comm, cpu } => Some((tid, comm, cpu)),
        _ => None,
    }
}

fn cpu_bound(
    facts: &QueueFacts<'_>,
    occupancy: Option<Occupancy>,
    tid: Tid,
    comm: &Comm,
    cpu: f64,
) -> Diagnosis {
    let name = comm.to_text();
    let is_certain = occupancy == Some(Occupancy::Always) && facts.owners.len() <= 1;
    let unknown = if is_certain {
        Vec::new()
    } else {
        vec!["whether that thread is the one that accepts".to_owned()]
    };
    Diagnosis {
        cause: Cause::SlowAcceptor,
        certainty: if is_certain { Certainty::Certain } else { Certainty::Likely },
        why: format!(
            "one thread, {name}[{}], uses a core up ({}), and the others next to nothing: it has \
             no time to accept",
            tid.0,
            percent(cpu)
        ),
        evidence: vec![
            from(text("thread", format!("{name}[{}]", tid.0)), THREADS),
            from(share("thread_cpu", cpu, "of one core"), THREADS),
        ],
        remedies: vec![less_work(), more_acceptors()],
        unknown,
    }
}

/// A thread is ready to run, and is not let: for most of the time, or so much that it would use a
/// core up if it had one.
fn starved(acceptor: &Acceptor) -> Option<Diagnosis> {
    let (thread, part) = acceptor.threads.iter().find_map(|thread| {
        let part = thread.starved?;
        let wants = thread.cpu.unwrap_or(0.0) + part;
        (part >= HALF || (part >= NOTICED && wants >= WHOLE_CORE)).then_some((thread, part))
    })?;
    let (name, tid) = (thread.comm.to_text(), thread.tid.0);
    // With as much of a core as it has, it could do with a whole one.
    let cpu = thread.cpu.filter(|cpu| *cpu >= HALF);
    let runs = cpu.map(|cpu| format!("runs for {} of the time, and ", percent(cpu)));
    let mut evidence = vec![from(text("thread", format!("{name}[{tid}]")), THREADS)];
    evidence.extend(cpu.map(|cpu| from(share("thread_cpu", cpu, "of one core"), THREADS)));
    let starved = share("thread_starved", part, "of the time");
    evidence.push(from(starved, "/proc/PID/task/TID/schedstat"));
    let more = "give it more CPU: a higher quota (cpu.max, CPUQuota=, --cpus), or a less busy host";
    let mut remedies = vec![remedy(When::ForGood, more, None)];
    remedies.extend(cpu.map(|_| less_work()));
    Some(Diagnosis {
        cause: Cause::SlowAcceptor,
        certainty: Certainty::Likely,
        why: format!(
            "thread {name}[{tid}] {}is ready to run and gets no core for {} of {}: the host, or \
             the CPU quota of its cgroup, is used up",
            runs.as_deref().unwrap_or_default(),
            percent(part),
            if runs.is_some() { "it" } else { "the time" },
        ),
        evidence,
        remedies,
        unknown: vec!["whether the host or the quota is short of CPU".to_owned()],
    })
}

fn less_work() -> Remedy {
    let text = "accept on a thread of its own, or take the work off the accepting one";
    remedy(When::ForGood, text, None)
}

fn more_acceptors() -> Remedy {
    let text = "accept with more threads or processes (worker_processes, --workers, SO_REUSEPORT)";
    remedy(When::ForGood, text, None)
}

fn wait_channel(behaviour: &Behaviour) -> Option<Evidence> {
    match behaviour {
        Behaviour::Blocked { wchan: Some(wchan), .. } => {
            Some(from(text("wchan", wchan.clone()), "/proc/PID/task/TID/wchan"))
        }
        _ => None,
    }
}

fn words(pid: Pid, behaviour: &Behaviour) -> (String, Certainty) {
    let why = match behaviour {
        Behaviour::Stopped => format!("process {pid} was stopped by a signal"),
        Behaviour::Traced { by: Some(by) } => {
            format!("process {pid} was stopped by process {by}, a debugger or tracer")
        }
        Behaviour::Traced { by: None } => {
            format!("process {pid} was stopped by a debugger or tracer")
        }
        Behaviour::Frozen => format!("process {pid} is frozen with its cgroup"),
        Behaviour::Blocked { comm, wchan, .. } => {
            let name = comm.to_text();
            let place = wchan.as_ref().map(|wchan| format!(" (in {wchan})")).unwrap_or_default();
            let waits = Wait::of(wchan.as_deref()).words();
            let why = format!(
                "the only thread of process {pid}, {name}, {waits}{place}, and cannot be \
                 interrupted"
            );
            return (why, Certainty::Likely);
        }
        _ => format!("process {pid} does not accept"),
    };
    (why, Certainty::Certain)
}

fn for_standing(pid: Pid, behaviour: &Behaviour, owner: Option<&Process>) -> Vec<Remedy> {
    match behaviour {
        Behaviour::Stopped => {
            vec![remedy(When::Now, "let it go on", Some(format!("kill -CONT {pid}")))]
        }
        Behaviour::Traced { by } => {
            let who = by.map_or_else(|| "the debugger".to_owned(), |by| format!("process {by}"));
            vec![remedy(
                When::Now,
                format!("have {who} detach from process {pid}, or end it"),
                None,
            )]
        }
        Behaviour::Frozen => vec![thaw(owner)],
        Behaviour::Blocked { wchan, .. } => vec![Wait::of(wchan.as_deref()).remedy(pid)],
        _ => Vec::new(),
    }
}

fn thaw(owner: Option<&Process>) -> Remedy {
    let container = owner.and_then(|owner| owner.container.as_ref());
    let unit = owner.and_then(|owner| owner.unit.as_deref());
    match (container, unit) {
        (Some(container), _) => {
            let id = container.short();
            let text = format!("thaw container {id}, as docker unpause and its like do");
            remedy(When::Now, text, None)
        }
        (None, Some(unit)) if is_plain(unit) => {
            remedy(When::Now, "thaw its unit", Some(format!("systemctl thaw {unit}")))
        }
        _ => remedy(When::Now, "write 0 to cgroup.freeze of its cgroup", None),
    }
}
