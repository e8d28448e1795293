//! What was found of a process, a line for each kind of fact.

use std::{fmt::Write as _, time::Duration};

use super::text::{INDENT, queue};
use crate::{
    model::{
        Ancestor, Behaviour, Census, ChainEnd, Diagnosis, Explanation, FdKind, Limit,
        ListenerReport, PeerShare, Process, Provenance, TcpState,
    },
    output::{
        sanitize,
        terminal::{
            diagnosis::push,
            words::{address, counted, duration},
        },
    },
};

/// Who is silent for less is just waiting.
const LONG: Duration = Duration::from_secs(60);

const MOST_LISTENERS: usize = 6;
const MOST_KINDS: usize = 8;
const MOST_PEERS: usize = 3;
const MOST_PATHS: usize = 3;
/// Of a longer chain, the first ones and the last.
const MOST_ANCESTORS: usize = 6;

pub(super) fn push_all(text: &mut String, explanation: &Explanation) {
    let mut line = |label: &str, words: Option<String>| {
        if let Some(words) = words {
            push(text, INDENT, label, &words, None);
        }
    };
    line("in", explanation.process.as_ref().and_then(place));
    line("on", listeners(&explanation.listeners));
    if let Some(census) = &explanation.census {
        line("fds", Some(kinds(census)));
        line("tcp", states(census));
        line("peers", peers(census));
        line("paths", paths(census));
    }
    line("limit", explanation.provenance.as_ref().and_then(chain));
    line("does", explanation.behaviour.as_ref().map(behaviour));
    line("?", unknown(explanation));
}

/// `a, b, c, 4 more`
fn listed(items: impl Iterator<Item = String>, most: usize) -> String {
    let all: Vec<String> = items.collect();
    let more = all.len().saturating_sub(most);
    let mut text = all[..all.len() - more].join(", ");
    if more > 0 {
        let _ = write!(text, ", {more} more");
    }
    text
}

/// `container 4f1c0d6f2f5a (docker), where its pid is 7; pod web-0, UID 0f3a…`
fn place(process: &Process) -> Option<String> {
    let Process { id, container, pod, ns_pid, .. } = process;
    let text = |text: &str| sanitize::escape(text.as_bytes());
    let ns_pid = ns_pid.filter(|pid| *pid != id.pid);
    let number = ns_pid.map(|pid| format!(", where its pid is {pid}")).unwrap_or_default();
    let container = container.as_ref().map(|container| {
        let engine = container.engine.map(|engine| format!(" ({})", engine.name()));
        format!("container {}{}{number}", text(container.short()), engine.unwrap_or_default())
    });
    let namespace = || ns_pid.map(|_| format!("another pid namespace{number}"));
    let pod = pod.as_ref().map(|pod| match &pod.name {
        Some(name) => format!("pod {}, UID {}", text(name), text(&pod.uid)),
        None => format!("pod {}", text(&pod.uid)),
    });
    let parts: Vec<String> = container.or_else(namespace).into_iter().chain(pod).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// All that it listens on, where that is more than the first line says.
fn listeners(listeners: &[ListenerReport]) -> Option<String> {
    let one = |listener: &ListenerReport| {
        format!("{} {}", address(&listener.socket.listener.address), queue(listener))
    };
    (listeners.len() > 1).then(|| listed(listeners.iter().map(one), MOST_LISTENERS))
}

/// `934 open: 902 tcp, 20 file, 8 pipe`
fn kinds(census: &Census) -> String {
    let is_tcp =
        |kind: &FdKind| matches!(kind, FdKind::Tcp(_) | FdKind::TcpUnlisted | FdKind::TcpUnread);
    let mut kinds: Vec<(String, u64)> = vec![("tcp".to_owned(), census.count(is_tcp))];
    let others = census.kinds.iter().filter(|(kind, _)| !is_tcp(kind));
    kinds.extend(others.map(|(kind, count)| (kind.to_string(), *count)));
    kinds.retain(|(_, count)| *count > 0);
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let about = if census.is_sampled() {
        format!("about {} (of {} looked at)", census.open.number(), census.looked_at)
    } else {
        census.open.number().to_string()
    };
    let kinds = kinds.into_iter().map(|(kind, count)| format!("{count} {kind}"));
    format!("{about} open: {}", listed(kinds, MOST_KINDS))
}

/// `900 CLOSE_WAIT (silent for 4m02s, half of them longer), 2 ESTABLISHED, 1 LISTEN`
fn states(census: &Census) -> Option<String> {
    let state = |(kind, count): &(FdKind, u64)| {
        let (name, silence) = match kind {
            FdKind::Tcp(state) => {
                let is_told = matches!(state, TcpState::CloseWait | TcpState::Established);
                let silence = census.silence_of(*state);
                (state.name(), silence.filter(|of| is_told && of.longest >= LONG))
            }
            FdKind::TcpUnlisted => ("without a connection", None),
            FdKind::TcpUnread => ("in an unknown state", None),
            _ => return None,
        };
        let silence = silence.map_or_else(String::new, |silence| {
            let longest = duration(silence.longest);
            if silence.median >= LONG {
                let median = duration(silence.median);
                format!(" (half of them silent for {median} or longer, one for {longest})")
            } else {
                format!(" (one of them silent for {longest})")
            }
        });
        Some(format!("{count} {name}{silence}"))
    };
    let states: Vec<String> = census.kinds.iter().filter_map(state).collect();
    (!states.is_empty()).then(|| states.join(", "))
}

/// `10.0.0.7 900 (900 CLOSE_WAIT), 10.0.0.8 2; 2 client addresses`
fn peers(census: &Census) -> Option<String> {
    if census.peers.is_empty() {
        return None;
    }
    let one = |share: &PeerShare| {
        let close_wait = match share.close_wait {
            0 => String::new(),
            count => format!(" ({count} CLOSE_WAIT)"),
        };
        format!("{} {}{close_wait}", share.peer, share.connections)
    };
    let shown = census.peers.iter().take(MOST_PEERS).map(one).collect::<Vec<_>>().join(", ");
    let distinct = census.distinct_peers;
    let at_least = if census.is_sampled() { "at least " } else { "" };
    let mut all = Vec::new();
    if distinct.clients > 0 {
        let noun = if distinct.clients == 1 { "client address" } else { "client addresses" };
        all.push(format!("{at_least}{} {noun}", distinct.clients));
    }
    if distinct.servers > 0 {
        all.push(format!("{at_least}{}", counted(distinct.servers, "server")));
    }
    Some(format!("{shown}; {}", all.join(", ")))
}

/// `/var/log/x.log 12, /data 300 (290 files)`
fn paths(census: &Census) -> Option<String> {
    let one = |share: &crate::model::PathShare| {
        let files =
            share.files.map_or_else(String::new, |files| format!(" ({})", counted(files, "file")));
        format!("{} {}{files}", share.path.display(), share.fds)
    };
    // One descriptor of a file is nothing to speak of.
    let several = census.paths.iter().filter(|share| share.fds > 1);
    let shown: Vec<String> = several.take(MOST_PATHS).map(one).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// `web[4711] 1024/4096 ← supervisord[812] 1024/4096 ← systemd[1] 524288/524288`
fn chain(provenance: &Provenance) -> Option<String> {
    let one = |process: &Ancestor| {
        let limits = process.limits.map_or_else(
            || "?".to_owned(),
            |limits| {
                let (soft, hard): (Limit, Limit) = (limits.soft, limits.hard);
                format!("{soft}/{hard}")
            },
        );
        format!("{}[{}] {limits}", process.comm.to_text(), process.id.pid)
    };
    let chain = &provenance.chain;
    let mut names: Vec<String> = chain.iter().map(one).collect();
    if names.len() > MOST_ANCESTORS {
        let left_out = names.len() - MOST_ANCESTORS;
        names.splice(MOST_ANCESTORS - 1..names.len() - 1, [format!("({left_out} more)")]);
    }
    match &provenance.chain_end {
        ChainEnd::Init => {}
        ChainEnd::TooLong => names.push("…".to_owned()),
        ChainEnd::Unreadable(_) => names.push("?".to_owned()),
    }
    (!chain.is_empty()).then(|| names.join(" ← "))
}

fn behaviour(behaviour: &Behaviour) -> String {
    let thread = |comm: &crate::model::Comm, tid: crate::model::Tid| {
        format!("thread {}[{}]", comm.to_text(), tid.0)
    };
    match behaviour {
        Behaviour::Stopped => "nothing: it was stopped by a signal".to_owned(),
        Behaviour::Traced { by } => {
            let by = by.map_or_else(String::new, |by| format!(" by process {by}"));
            format!("nothing: it was stopped{by} as a debugger does")
        }
        Behaviour::Frozen => "nothing: its cgroup is frozen".to_owned(),
        Behaviour::Blocked { tid, comm, wchan } => {
            let place = wchan.as_ref().map_or_else(String::new, |wchan| format!(" in {wchan}"));
            format!("{} waits{place}, and cannot be interrupted", thread(comm, *tid))
        }
        Behaviour::CpuBound { tid, comm, cpu } => {
            format!("{} uses {:.0} % of a core", thread(comm, *tid), cpu * 100.0)
        }
        Behaviour::BusyLoop { per_second, .. } => {
            format!("accept fails {per_second:.0} times a second: it tries again at once")
        }
        Behaviour::BackingOff { longest } => {
            format!("waits longer after each failure, up to {}", duration(*longest))
        }
        Behaviour::Pausing { pause } => format!("waits {} after a failure", duration(*pause)),
        Behaviour::DrainsWhileFailing => "accept fails, and yet the queue stays empty".to_owned(),
        Behaviour::GaveUp { silent } => format!("has not tried for {}", duration(*silent)),
    }
}

/// What is unknown and was not said with a diagnosis.
fn unknown(explanation: &Explanation) -> Option<String> {
    let is_said = |what: &String| {
        explanation.diagnoses.iter().any(|diagnosis: &Diagnosis| {
            diagnosis.certainty == crate::model::Certainty::Likely
                && diagnosis.unknown.contains(what)
        })
    };
    let mut all: Vec<&str> = Vec::new();
    for what in explanation.unknown.iter().filter(|what| !is_said(what)) {
        if !all.contains(&what.as_str()) {
            all.push(what);
        }
    }
    (!all.is_empty()).then(|| format!("unknown: {}", all.join("; ")))
}
