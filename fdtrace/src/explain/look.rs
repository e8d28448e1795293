//! A close look at one process: its descriptors, its threads, its queue, its limit.

use std::{io, path::Path, thread, time::Duration};

use crate::{
    diagnose::{AcceptFacts, ExplainFacts, behaviour, explain},
    enrich::{
        Worker,
        acceptor::{self, WINDOW},
        census::{self, Budget},
        host_listeners, provenance, read_clocks,
    },
    model::{
        Acceptor, Explanation, ListenerReport, ListeningSocket, OwnerFds, Process, ProcessId,
        QueueSample,
    },
};

/// Of a queue that is filling: so many looks, so far apart. A burst is over sooner.
const LOOKS: u32 = 6;
const BETWEEN_LOOKS: Duration = Duration::from_millis(400);
/// Owners of one listener whose threads are looked at.
const MOST_ACCEPTORS: usize = 16;

/// One that is meant.
pub(super) struct Candidate {
    /// `None` for a listener of which no process can be found.
    pub(super) process: Option<Process>,
    pub(super) fds: Option<OwnerFds>,
    /// What it listens on, what was asked for first; `None` where nobody can say.
    pub(super) listeners: Option<Vec<ListenerReport>>,
}

/// Looks at it.
pub(super) fn look(proc: &Path, candidate: Candidate, own_netns: Option<u32>) -> Explanation {
    let Candidate { process, fds, mut listeners } = candidate;
    let mut unknown = Vec::new();
    let id = process.as_ref().map(|process| process.id);
    let census = id.map(|id| census::start(proc.to_owned(), None, id, Budget::default()));
    let first = listeners.as_deref().and_then(<[_]>::first);
    let filling = first.filter(|listener| listener.queue_risk().is_some());

    // The threads are looked at while the descriptors are counted.
    let others = filling.map(|listener| listener.owners.as_slice()).unwrap_or_default();
    let others = others.iter().map(|owner| owner.id).filter(|other| Some(*other) != id);
    let threads: Vec<(ProcessId, io::Result<Worker<Acceptor>>)> = id
        .into_iter()
        .chain(others)
        .take(MOST_ACCEPTORS)
        .map(|id| (id, acceptor::start(proc.to_owned(), id, WINDOW)))
        .collect();
    let mut is_hidden = false;
    let census = census.map(|census| census.and_then(Worker::wait)).and_then(|census| {
        let note = |error: &io::Error| {
            is_hidden = true;
            unknown.push(because("what its descriptors are", error));
        };
        census.inspect_err(note).ok()
    });
    let mut acceptors: Vec<Acceptor> = Vec::new();
    let mut own = None;
    for (of, worker) in threads {
        match worker.and_then(Worker::wait) {
            Ok(acceptor) if Some(of) == id => {
                own = Some(acceptor.clone());
                acceptors.push(acceptor);
            }
            Ok(acceptor) => acceptors.push(acceptor),
            Err(error) => unknown.push(because(&format!("what threads of {} do", of.pid), &error)),
        }
    }
    let provenance = id.map(|id| provenance::read(Path::new("/"), id.pid));
    let samples = filling.map(|listener| watch(proc, &listener.socket)).unwrap_or_default();

    // They can be counted, and not read: that it listens on nothing is no fact.
    if is_hidden && listeners.as_ref().is_some_and(Vec::is_empty) {
        listeners = None;
    }
    if process.is_none() {
        unknown.push("which process has it open: none that may be looked into".to_owned());
    } else if listeners.is_none() {
        unknown.push("what it listens on, for the same reason".to_owned());
    }
    let (verdict, diagnoses) = explain(&ExplainFacts {
        process: process.as_ref(),
        fds,
        listeners: listeners.as_deref(),
        provenance: provenance.as_ref(),
        census: census.as_ref(),
        acceptor: own.as_ref(),
        acceptors: &acceptors,
        samples: &samples,
        own_netns,
    });
    if let Some(provenance) = &provenance {
        unknown.extend(provenance.unknown.iter().cloned());
    }
    unknown.extend(census.iter().flat_map(|census| census.unknown.iter().cloned()));
    Explanation {
        process,
        listeners: listeners.unwrap_or_default(),
        fds,
        verdict,
        diagnoses,
        census,
        provenance,
        threads: own.as_ref().map(|acceptor| acceptor.thread_count),
        behaviour: own.as_ref().and_then(|acceptor| {
            behaviour(&AcceptFacts { acceptor: Some(acceptor), ..AcceptFacts::default() })
        }),
        unknown,
    }
}

/// What an operator can do something with.
fn because(what: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{what}: not permitted to look (root with CAP_SYS_PTRACE may, and its user)")
        }
        io::ErrorKind::NotFound => format!("{what}: it has ended"),
        _ => format!("{what}: {error}"),
    }
}

/// Looks at a queue some more.
fn watch(proc: &Path, socket: &ListeningSocket) -> Vec<QueueSample> {
    let mut samples: Vec<QueueSample> = Vec::new();
    for _ in 0..LOOKS {
        if !samples.is_empty() {
            thread::sleep(BETWEEN_LOOKS);
        }
        let at = read_clocks().boot;
        let namespaces = host_listeners(proc).namespaces;
        let its = namespaces.into_iter().filter(|one| one.netns == socket.listener.netns);
        let sockets = its.flat_map(|one| {
            let tcp = one.tcp.map(|tcp| tcp.sockets).unwrap_or_default();
            tcp.into_iter().chain(one.unix.unwrap_or_default())
        });
        let length = sockets.filter(|one| one.inode == socket.inode).find_map(|one| one.length);
        // It has been closed.
        let Some(length) = length else { break };
        samples.push(QueueSample { at, length });
    }
    samples
}
