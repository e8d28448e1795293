//! Descriptors that are not closed.

use std::time::Duration;

use super::{
    evidence::{self, CENSUS, count, from, lasting, of_open, several, span, text},
    held::{Candidate, HeldFacts, MOST},
};
use crate::model::{
    Acceptor, Cause, Census, Certainty, Diagnosis, Evidence, FdKind, Peer, Remedy, TcpState,
    ThreadState, When,
};

/// A program that looks after its connections closes one that its peer has closed at once.
const LONG: Duration = Duration::from_secs(60);
/// Two looks closer to each other do not tell growth from chance.
const LEAST: Duration = Duration::from_secs(3);
/// And growth by less than one in so many of all is nothing to speak of.
const SHARE: u64 = 20;
/// A file may be open a few times over.
const SAME_FILE: u64 = 100;

/// Everything that looks like a leak, and how much of the descriptors it accounts for.
pub(super) fn candidates(facts: &HeldFacts<'_>) -> Vec<Candidate> {
    // What stands still cannot close anything: that is another cause.
    if facts.acceptor.is_some_and(stands_still) {
        return Vec::new();
    }
    let census = facts.census;
    let found = [close_wait(census), unlisted(census), same_file(census), deleted(census)];
    let mut found: Vec<Candidate> = found.into_iter().flatten().collect();
    if found.iter().all(|candidate| candidate.share < MOST) {
        found.extend(growing(facts));
    }
    found
}

fn stands_still(acceptor: &Acceptor) -> bool {
    let stands = |state| matches!(state, ThreadState::Stopped | ThreadState::Traced);
    let mut alive = acceptor.alive().peekable();
    alive.peek().is_some() && alive.all(|thread| stands(thread.state) || thread.is_frozen())
}

/// Connections that the peer has closed, and the program has not.
fn close_wait(census: &Census) -> Option<Candidate> {
    let number = census.tcp(TcpState::CloseWait);
    let share = census.share(number);
    let silence = census.silence_of(TcpState::CloseWait);
    let is_old = silence.is_some_and(|silence| silence.median >= LONG);
    let is_read = census.end_was_read * 2 >= number;
    let certainty = if is_old || is_read { Certainty::Certain } else { Certainty::Likely };
    let mut evidence = vec![from(count("close_wait", number, "connections"), CENSUS)];
    let mut why = format!(
        "{} are connections in CLOSE_WAIT{}",
        of_open(census, number),
        from_whom(census, number, &mut evidence)
    );
    why.push_str(": the program does not close what its peer has closed");
    if number > 0 && is_read {
        why.push_str(", though it has read its end");
        evidence.push(from(count("end_was_read", census.end_was_read, "connections"), CENSUS));
    }
    if let Some(silence) = silence.filter(|_| is_old) {
        why = format!("{why}; half of them have been so for {} or longer", span(silence.median));
        evidence.push(from(lasting("close_wait_for", silence.median), "TCP_INFO"));
        evidence.push(from(lasting("close_wait_longest", silence.longest), "TCP_INFO"));
    }
    let mut unknown = Vec::new();
    if certainty == Certainty::Likely {
        unknown
            .push("whether it would close them later: they have not been so for long".to_owned());
    }
    let remedies = fix_and_restart(
        "close a connection when read(2) returns 0, also after errors and timeouts",
    );
    let diagnosis = Diagnosis { cause: Cause::FdLeak, certainty, why, evidence, remedies, unknown };
    (number > 0).then_some(Candidate { share, diagnosis })
}

/// ` from 10.0.0.7`, ` to 10.0.0.5:5432`, ` from 40 clients`
fn from_whom(census: &Census, number: u64, evidence: &mut Vec<Evidence>) -> String {
    let most = census.peers.iter().max_by_key(|share| share.close_wait);
    let Some(most) = most.filter(|share| share.close_wait > 0) else {
        return String::new();
    };
    let (word, one, more, all) = match most.peer {
        Peer::Client(_) => ("from", "client", "clients", census.distinct_peers.clients),
        Peer::Server(_) => ("to", "server", "servers", census.distinct_peers.servers),
    };
    evidence.push(from(text("peer", most.peer.to_string()), CENSUS));
    evidence.push(from(count("peer_close_wait", most.close_wait, "connections"), CENSUS));
    if most.close_wait >= number {
        format!(" {word} {}", most.peer)
    } else if most.close_wait * 2 >= number {
        format!(", most of them {word} {}", most.peer)
    } else {
        format!(" {word} some of {}", several(all, one, more))
    }
}

/// Sockets whose connection is over.
fn unlisted(census: &Census) -> Option<Candidate> {
    let number = census.count(|kind| *kind == FdKind::TcpUnlisted);
    let why = format!(
        "{} are TCP sockets without a connection: it ended, or never came about, and the program \
         does not close them",
        of_open(census, number)
    );
    let evidence = vec![from(count("tcp_unlisted", number, "sockets"), CENSUS)];
    likely(
        census,
        number,
        why,
        evidence,
        "close a socket also when its connection was reset, shut down or refused",
    )
}

/// One file, open hundreds of times.
fn same_file(census: &Census) -> Option<Candidate> {
    let most =
        census.paths.iter().filter(|share| share.files.is_none()).max_by_key(|share| share.fds)?;
    if most.fds < SAME_FILE {
        return None;
    }
    let path = most.path.display();
    let why = format!(
        "{} are the same file, {path}: the program opens it again and again, and does not close it",
        of_open(census, most.fds)
    );
    let evidence = vec![
        from(count("same_file", most.fds, "file descriptors"), CENSUS),
        from(text("path", path.to_string()), CENSUS),
    ];
    likely(
        census,
        most.fds,
        why,
        evidence,
        &format!("close {path} after use, or keep one descriptor of it"),
    )
}

/// Files that nobody else can see any more.
fn deleted(census: &Census) -> Option<Candidate> {
    let number = census.count(|kind| *kind == FdKind::DeletedFile);
    let why = format!(
        "{} are files that were deleted: the program does not close what it, \
         or a rotation of logs, removes",
        of_open(census, number)
    );
    let evidence = vec![from(count("deleted_files", number, "file descriptors"), CENSUS)];
    likely(
        census,
        number,
        why,
        evidence,
        "close files before or after they are removed; make log rotation tell the program",
    )
}

fn likely(
    census: &Census,
    number: u64,
    why: String,
    evidence: Vec<Evidence>,
    fix: &str,
) -> Option<Candidate> {
    let diagnosis = Diagnosis {
        cause: Cause::FdLeak,
        certainty: Certainty::Likely,
        why,
        evidence,
        remedies: fix_and_restart(fix),
        unknown: vec!["whether the program needs them".to_owned()],
    };
    let share = census.share(number);
    // A few are nothing to speak of, and of most alone it can be said.
    (number > 0 && share >= MOST).then_some(Candidate { share, diagnosis })
}

/// Descriptors of one kind have become more since it was first close to its limit, and connections
/// have not.
fn growing(facts: &HeldFacts<'_>) -> Option<Candidate> {
    let (census, earlier) = (facts.census, facts.earlier?);
    let lasting = facts.at.since(earlier.at);
    let (from, to) = (earlier.census.open.number(), census.open.number());
    let grown = to.checked_sub(from)?;
    if lasting < LEAST || grown * SHARE < to {
        return None;
    }
    let [before, now] =
        [&earlier.census, census].map(|census| census.count(FdKind::may_be_connection));
    let more_connections = now.saturating_sub(before);
    let more = |kind: &FdKind, count: u64| {
        count.saturating_sub(earlier.census.count(|other| other == kind))
    };
    let others = census.kinds.iter().filter(|(kind, _)| !kind.may_be_connection());
    let (kind, number) = others.max_by_key(|(kind, count)| more(kind, *count))?;
    let more = more(kind, *number);
    // Most of it is of this kind, and what connections there are more is little beside that.
    if more * 2 < grown || more_connections * 5 > grown {
        return None;
    }
    let is_sampled = census.is_sampled() || earlier.census.is_sampled();
    let about = if is_sampled { "about " } else { "" };
    let why = format!(
        "descriptors grew from {from} to {to} in {}, and {about}{more} of the {grown} are {kind}, while \
         connections went from {before} to {now}",
        span(lasting),
    );
    let connections = |fact, number| counted(count(fact, number, "connections"));
    let diagnosis = Diagnosis {
        cause: Cause::FdLeak,
        certainty: Certainty::Likely,
        why,
        evidence: vec![
            counted(text("kind", kind.to_string())),
            counted(count("kind_fds", *number, "file descriptors")),
            counted(count("kind_growth", more, "file descriptors")),
            connections("connections_before", before),
            connections("connections", now),
            evidence::lasting("grown_over", lasting),
        ],
        remedies: fix_and_restart(&format!("close descriptors of this kind ({kind}) after use")),
        unknown: vec!["whether it goes on so: the program may need them".to_owned()],
    };
    Some(Candidate { share: census.share(*number), diagnosis })
}

fn counted(evidence: Evidence) -> Evidence {
    evidence::from(evidence, CENSUS)
}

fn fix_and_restart(fix: &str) -> Vec<Remedy> {
    let now = "a higher limit gives it time, no more; a restart gives all descriptors back";
    vec![
        Remedy { when: When::Now, text: now.to_owned(), command: None },
        Remedy { when: When::ForGood, text: format!("in the program: {fix}"), command: None },
    ]
}
