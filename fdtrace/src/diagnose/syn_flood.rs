//! Half-open connections: an attack, or a thundering herd.

use std::time::Duration;

use super::{
    evidence::{count, from, lasting, per_second, percent, rate, remedy, several, share},
    sysctl::Place,
};
use crate::model::{Cause, Certainty, Diagnosis, HalfOpen, Handshakes, Process, Remedy, When};

const SYNCOOKIES: &str = "net.ipv4.tcp_syncookies";

/// From so many addresses it is not some clients that retry.
const MANY: u64 = 100;

/// Of so many half-open requests, their share that nobody answers tells something.
const ENOUGH_REQUESTS: u64 = 16;

/// What is known of a listener whose SYN queue is full.
#[derive(Clone, Copy, Debug, Default)]
pub struct SynFacts<'a> {
    /// Over so long.
    pub lasting: Duration,
    /// SYNs answered by a cookie.
    pub cookies_sent: u64,
    /// SYNs dropped.
    pub dropped: u64,
    /// Different clients (address and port) among them, estimated; `None` for too many to tell.
    pub clients: Option<u64>,
    /// What became of SYNs of the listener's namespace in a part of that time; `None` where unknown.
    pub handshakes: Option<Handshakes>,
    /// SYNs dropped in that part.
    pub dropped_meanwhile: u64,
    /// The half-open requests in the SYN queue; `None` where nobody could look.
    pub half_open: Option<HalfOpen>,
    /// `net.ipv4.tcp_syncookies` of the listener's namespace.
    pub tcp_syncookies: Option<u8>,
    /// That namespace.
    pub netns: Option<u32>,
    /// The one that fdtrace is in.
    pub own_netns: Option<u32>,
    /// The lead owner of the listener.
    pub owner: Option<&'a Process>,
}

/// How many of those who knock come in.
#[derive(Clone, Copy, Debug)]
struct Completed {
    /// The part of all, 0 to 1.
    part: f64,
    /// Of what.
    of: &'static str,
    /// The kernel's counter.
    counter: &'static str,
    /// Whether connections to other listeners of the namespace are in it.
    has_others: bool,
}

impl Completed {
    fn of(facts: &SynFacts<'_>) -> Option<Self> {
        let handshakes = facts.handshakes?;
        if facts.cookies_sent > 0 {
            let sent = handshakes.cookies_sent.filter(|sent| *sent > 0)?;
            return Some(Self {
                part: part(handshakes.cookies_returned?, sent),
                of: "of the cookies sent",
                counter: "SyncookiesRecv and SyncookiesSent",
                has_others: false,
            });
        }
        let completed = handshakes.completed?;
        Some(Self {
            part: part(completed, completed.checked_add(facts.dropped_meanwhile)?),
            of: "of those and of the SYNs dropped",
            counter: "PassiveOpens",
            has_others: true,
        })
        .filter(|_| facts.dropped_meanwhile > 0)
    }
}

fn part(some: u64, of: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "no flood has 2^53 segments")]
    let (some, of) = (some as f64, of.max(1) as f64);
    some / of
}

/// Who is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Flood,
    Herd,
    Unknown,
}

fn decide(
    is_many: bool,
    completed: Option<Completed>,
    unanswered: Option<f64>,
) -> (Who, Certainty) {
    let nobody_answers = unanswered.is_some_and(|part| part >= 0.8);
    let most_answer = unanswered.is_some_and(|part| part < 0.5);
    match completed {
        Some(Completed { part, .. }) if part < 0.1 && is_many && !most_answer => {
            (Who::Flood, Certainty::Certain)
        }
        // Real clients are among them; or, where the whole namespace is counted, beside them.
        Some(Completed { part, has_others, .. })
            if is_many && nobody_answers && (part < 0.5 || has_others) =>
        {
            (Who::Flood, Certainty::Likely)
        }
        None if is_many && nobody_answers => (Who::Flood, Certainty::Likely),
        // A SYN that was dropped comes again, up to three times in ten seconds, before it gets in.
        Some(Completed { part, has_others: true, .. }) if part >= 0.2 && most_answer => {
            (Who::Herd, Certainty::Likely)
        }
        Some(Completed { part, .. }) if part >= 0.5 && !nobody_answers => {
            (Who::Herd, Certainty::Likely)
        }
        _ => (Who::Unknown, Certainty::Likely),
    }
}

/// Says why the SYN queue is full: [`Cause::SynFlood`], [`Cause::BacklogTooSmall`] for a herd of
/// clients that do complete, or [`Cause::Unknown`].
#[must_use]
pub fn syn_flood(facts: &SynFacts<'_>) -> Diagnosis {
    let attempts = facts.cookies_sent + facts.dropped;
    let rate_of = part(attempts, 1) / facts.lasting.as_secs_f64().max(0.001);
    let completed = Completed::of(facts);
    let enough = facts.half_open.filter(|half| half.requests >= ENOUGH_REQUESTS);
    let unanswered = enough.map(|half| part(half.unanswered, half.requests));
    let is_many = facts.clients.is_none_or(|clients| clients >= MANY);
    let (who, certainty) = decide(is_many, completed, unanswered);
    let cause = match who {
        Who::Flood => Cause::SynFlood,
        Who::Herd => Cause::BacklogTooSmall,
        Who::Unknown => Cause::Unknown,
    };
    let why = words(facts, attempts, rate_of, who, completed, enough);
    let mut evidence = vec![
        from(count("syn_cookies_sent", facts.cookies_sent, "segments"), "packets at the listener"),
        from(count("syns_dropped", facts.dropped, "segments"), "packets at the listener"),
        rate("syns", rate_of, "segments"),
        lasting("over", facts.lasting),
    ];
    if let Some(clients) = facts.clients {
        evidence.push(count("clients", clients, "addresses and ports, estimated"));
    }
    if let Some(completed) = completed {
        evidence.push(from(share("completed", completed.part, completed.of), completed.counter));
    }
    if let Some(invalid) = facts.handshakes.and_then(|handshakes| handshakes.cookies_invalid) {
        evidence.push(from(count("cookies_invalid", invalid, "segments"), "SyncookiesFailed"));
    }
    if let Some(half) = facts.half_open {
        let of = |fact, number, unit| from(count(fact, number, unit), "sock_diag");
        evidence.extend([
            of("half_open", half.requests, "requests"),
            of("unanswered", half.unanswered, "requests"),
            of("half_open_addresses", half.addresses, "addresses"),
        ]);
    }
    let unknown = unknown(completed, enough);
    Diagnosis { cause, certainty, why, evidence, remedies: remedies(facts, cause), unknown }
}

fn words(
    facts: &SynFacts<'_>,
    attempts: u64,
    rate_of: f64,
    who: Who,
    completed: Option<Completed>,
    half: Option<HalfOpen>,
) -> String {
    let clients =
        facts.clients.map_or("more clients than can be told apart".to_owned(), |clients| {
            format!("about {}", several(clients, "client", "clients"))
        });
    let served = if facts.dropped > 0 { "are dropped" } else { "found the SYN queue full" };
    let answer = match who {
        Who::Flood => "a SYN flood: ",
        Who::Herd => "a rush of clients, no attack: ",
        Who::Unknown => "",
    };
    let mut why =
        format!("{answer}{attempts} SYNs ({}) from {clients} {served}", per_second(rate_of));
    match completed {
        Some(Completed { part, has_others: false, .. }) => {
            why = format!("{why}, and {} of the cookies come back", percent(part));
        }
        Some(Completed { part, has_others: true, .. }) if part < 0.1 => {
            why = format!("{why}, and next to none of them complete a connection");
        }
        Some(_) | None => {}
    }
    let Some(half) = half else { return why };
    let HalfOpen { requests, unanswered, addresses, busiest } = half;
    let whose = match busiest {
        Some((address, most)) if most * 2 >= requests => format!("{most} of them {address}'s"),
        _ => format!("from {}", several(addresses, "address", "addresses")),
    };
    format!(
        "{why}; of {requests} half-open requests, {whose}, {unanswered} have not answered for a \
         second or longer"
    )
}

fn unknown(completed: Option<Completed>, half: Option<HalfOpen>) -> Vec<String> {
    let mut unknown = Vec::new();
    match completed {
        None => unknown.push(
            "how many of these clients would complete a connection: the kernel's counters of their \
             network namespace could not be read, or did not move"
                .to_owned(),
        ),
        Some(completed) if completed.has_others => unknown.push(
            "how many of the connections completed are this listener's: the kernel counts those of \
             its network namespace"
                .to_owned(),
        ),
        Some(_) => {}
    }
    if half.is_none() {
        unknown.push("whether the clients in the SYN queue answer".to_owned());
    }
    unknown
}

fn remedies(facts: &SynFacts<'_>, cause: Cause) -> Vec<Remedy> {
    let mut remedies = Vec::new();
    let place = Place::of(facts.netns, facts.own_netns, facts.owner);
    if facts.tcp_syncookies == Some(0) {
        remedies.push(remedy(
            When::Now,
            "answer by SYN cookies when the queue is full: real clients get in during a flood",
            place.command(SYNCOOKIES, 1),
        ));
        remedies.extend(place.set(SYNCOOKIES, 1, "90-syncookies.conf"));
    }
    match cause {
        Cause::SynFlood => remedies.push(remedy(
            When::ForGood,
            "filter or rate-limit SYNs before they reach the host (firewall, synproxy, provider): \
             their addresses are mostly forged",
            None,
        )),
        Cause::BacklogTooSmall => remedies.push(remedy(
            When::ForGood,
            "a larger backlog and net.core.somaxconn make the SYN queue longer too",
            None,
        )),
        _ => {}
    }
    remedies
}

#[cfg(test)]
mod tests;
