//! `fdtrace explain`: wires enrich → diagnose → output for a close look at one process.

mod look;

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::{anyhow, bail};

use self::look::{Candidate, look};
use crate::{
    cli::ExplainSettings,
    diagnose::verdict,
    enrich::{Owner, find, read_clocks},
    listeners::{self, Survey},
    model::{
        BootTime, Bystander, ExplainReport, ListenerQuery, ListenerReport, Pid, Subject, Verdict,
        is_called,
    },
    output::{Colour, explain_json, explain_text, listener_query},
};

/// So many are explained, where several are meant and stand badly.
const MOST_EXPLAINED: usize = 3;

const PROC: &str = "/proc";

/// Explains what was asked for.
pub fn explain(
    settings: &ExplainSettings,
    colour: Colour,
    output: &mut dyn Write,
) -> anyhow::Result<()> {
    let clock = read_clocks();
    let report = report(&settings.subject, clock.boot)?;
    let bytes = if settings.json {
        explain_json(&report, &clock)?
    } else {
        explain_text(&report, colour).into_bytes()
    };
    listeners::write(output, &bytes)?;
    Ok(())
}

fn report(subject: &Subject, at: BootTime) -> anyhow::Result<ExplainReport> {
    let proc = Path::new(PROC);
    // Before anything that takes long.
    let named = match subject {
        Subject::Pid(pid) => vec![process(proc, *pid)?],
        Subject::Name(name) => called(proc, name)?,
        Subject::Listener(_) => Vec::new(),
    };
    let survey = listeners::survey(proc, |_| true);
    let (mut survey, failed) = match (survey, subject) {
        (Ok(survey), _) => (Some(survey), None),
        (Err(error), Subject::Listener(_)) => return Err(error),
        // A process is more than its listeners.
        (Err(error), _) => (None, Some(error.to_string())),
    };
    let mut candidates = match (subject, &mut survey) {
        (Subject::Listener(query), Some(survey)) => of_listener(survey, query)?,
        (_, survey) => named.iter().map(|owner| of_process(survey.as_mut(), owner, None)).collect(),
    };
    candidates.sort_by_cached_key(|one| {
        let fullness = one.fds.and_then(|fds| fds.fullness());
        let listens = one.listeners.as_ref().is_some_and(|listeners| !listeners.is_empty());
        (one.verdict(), std::cmp::Reverse((listens, fullness)))
    });
    let badly = candidates.iter().filter(|one| one.verdict() < Verdict::Unknown).count();
    let others = candidates.split_off(badly.clamp(1, MOST_EXPLAINED).min(candidates.len()));
    let others = others
        .into_iter()
        .filter_map(|one| Some(Bystander { process: one.process?, fds: one.fds? }));
    let own_netns = survey.as_ref().and_then(|survey| survey.own_netns);
    let explanations = candidates.into_iter().map(|one| {
        let mut explanation = look(proc, one, own_netns);
        explanation.unknown.extend(failed.clone());
        explanation
    });
    Ok(ExplainReport { at, explanations: explanations.collect(), others: others.collect() })
}

fn process(proc: &Path, pid: Pid) -> anyhow::Result<Owner> {
    find::process(proc, pid).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let hint = u16::try_from(pid.0).map(|port| format!("; a port is :{port}"));
            anyhow!("there is no process {pid}{}", hint.unwrap_or_default())
        }
        _ => anyhow!("cannot look at process {pid}: {error}"),
    })
}

fn called(proc: &Path, name: &str) -> anyhow::Result<Vec<Owner>> {
    let mut found = find::processes(proc, |comm, unit| is_called(name, comm, unit))?;
    found.processes.retain(|owner| owner.id.pid.0 != std::process::id());
    if found.processes.is_empty() {
        // It is the user's own, and quoted.
        bail!(
            "no process is called {name:?}, nor its systemd unit (looked at {} processes; names are \
             those of `ps -o comm`)",
            found.looked_at
        );
    }
    Ok(found.processes)
}

fn of_listener(survey: &mut Survey, query: &ListenerQuery) -> anyhow::Result<Vec<Candidate>> {
    let is_it = |listener: &&ListenerReport| query.wants(&listener.socket.listener.address);
    let found: Vec<ListenerReport> = survey.listeners.iter().filter(is_it).cloned().collect();
    if found.is_empty() {
        let unseen = if survey.sees_all && survey.unseen.namespaces == 0 {
            ""
        } else {
            "; not all network namespaces could be seen: run as root"
        };
        bail!(
            "nothing listens on {} (looked at {} listeners, network namespaces: {}{unseen})",
            listener_query(query),
            survey.listeners.len(),
            survey.namespaces
        );
    }
    let mut candidates: Vec<Candidate> = Vec::new();
    for listener in found {
        if listener.owners.is_empty() {
            candidates.push(Candidate::ownerless(listener));
            continue;
        }
        for owner in &listener.owners {
            let is_known = |one: &Candidate| {
                one.process.as_ref().is_some_and(|process| process.id == owner.id)
            };
            if !candidates.iter().any(is_known) {
                let owner = Owner { id: owner.id, comm: owner.comm.clone() };
                candidates.push(of_process(Some(survey), &owner, Some(query)));
            }
        }
    }
    Ok(candidates)
}

/// A process with all that it listens on, what was asked for first.
fn of_process(
    survey: Option<&mut Survey>,
    owner: &Owner,
    query: Option<&ListenerQuery>,
) -> Candidate {
    let Some(survey) = survey else {
        let mut people = listeners::People::look(Path::new(PROC), []);
        let fds = Some(people.fds(owner.id));
        return Candidate { process: Some(people.describe(owner)), fds, listeners: None };
    };
    let fds = survey.people.fds(owner.id);
    let is_its = |listener: &&ListenerReport| listener.owners.iter().any(|one| one.id == owner.id);
    let mut listeners: Vec<ListenerReport> =
        survey.listeners.iter().filter(is_its).cloned().collect();
    listeners.sort_by_cached_key(|listener| {
        let address = &listener.socket.listener.address;
        let is_other = query.is_some_and(|query| !query.wants(address));
        let risk = listener.queue_risk();
        // A client comes from outside sooner than from a file.
        (is_other, risk.is_none(), risk, address.port().is_none(), listener.socket.listener.clone())
    });
    let process = Some(survey.people.describe(owner));
    Candidate { process, fds: Some(fds), listeners: Some(listeners) }
}

impl Candidate {
    fn ownerless(listener: ListenerReport) -> Self {
        Self { process: None, fds: None, listeners: Some(vec![listener]) }
    }

    /// By what is cheap to read.
    fn verdict(&self) -> Verdict {
        verdict(self.fds, self.listeners.as_deref())
    }
}
