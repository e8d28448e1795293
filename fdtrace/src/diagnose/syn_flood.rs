//! Half-open connections: an attack, or a thundering herd.

use std::time::Duration;

use super::{
    evidence::{count, from, lasting, per_second, percent, rate, remedy, share},
    sysctl::Place,
};
use crate::model::{Cause, Certainty, Diagnosis, Process, Remedy, When};

const SYNCOOKIES: &str = "net.ipv4.tcp_syncookies";

/// From so many addresses it is not some clients that retry.
const MANY: u64 = 100;

/// What is known of a listener whose SYN queue is full.
#[derive(Clone, Copy, Debug, Default)]
pub struct SynFacts<'a> {
    /// Over so long.
    pub lasting: Duration,
    /// SYNs answered by a cookie.
    pub cookies_sent: u64,
    /// SYNs dropped.
    pub dropped: u64,
    /// Different clients among them, estimated.
    pub clients: u64,
    /// Connections completed by a cookie in the same time (`SyncookiesRecv`); `None` where unknown.
    pub completed: Option<u64>,
    /// `net.ipv4.tcp_syncookies` of the listener's namespace.
    pub tcp_syncookies: Option<u8>,
    /// That namespace.
    pub netns: Option<u32>,
    /// The one that fdtrace is in.
    pub own_netns: Option<u32>,
    /// The lead owner of the listener.
    pub owner: Option<&'a Process>,
}

/// Says why the SYN queue is full: [`Cause::SynFlood`], [`Cause::BacklogTooSmall`] for a herd of
/// clients that do complete, or [`Cause::Unknown`].
#[must_use]
pub fn syn_flood(facts: &SynFacts<'_>) -> Diagnosis {
    let attempts = facts.cookies_sent + facts.dropped;
    #[expect(clippy::cast_precision_loss, reason = "no flood has 2^53 segments")]
    let rate_of = attempts as f64 / facts.lasting.as_secs_f64().max(0.001);
    #[expect(clippy::cast_precision_loss, reason = "no flood has 2^53 segments")]
    let completed = facts
        .completed
        .filter(|_| facts.cookies_sent > 0)
        .map(|completed| completed as f64 / facts.cookies_sent as f64);
    let is_many = facts.clients >= MANY;
    let who =
        format!("{attempts} SYNs ({}) from about {} addresses", per_second(rate_of), facts.clients);
    let served =
        if facts.tcp_syncookies == Some(0) { "are dropped" } else { "found the SYN queue full" };
    let (cause, certainty, why) = match completed {
        Some(part) if part < 0.1 && is_many => (
            Cause::SynFlood,
            Certainty::Certain,
            format!(
                "{who} {served}, and {} of them complete a connection: a SYN flood",
                percent(part)
            ),
        ),
        Some(part) if part >= 0.5 => (
            Cause::BacklogTooSmall,
            Certainty::Likely,
            format!(
                "{who} {served}, and {} of them complete a connection: a rush of clients, no \
                 attack",
                percent(part)
            ),
        ),
        Some(part) => (
            Cause::Unknown,
            Certainty::Likely,
            format!("{who} {served}; {} of them complete a connection", percent(part)),
        ),
        None => (Cause::Unknown, Certainty::Likely, format!("{who} {served}")),
    };
    let mut evidence = vec![
        from(count("syn_cookies_sent", facts.cookies_sent, "segments"), "packets at the listener"),
        from(count("syns_dropped", facts.dropped, "segments"), "packets at the listener"),
        count("client_addresses", facts.clients, "addresses, estimated"),
        rate("syns", rate_of, "segments"),
        lasting("over", facts.lasting),
    ];
    let mut unknown = Vec::new();
    if let Some(part) = completed {
        let completed = share("completed", part, "of the cookies sent");
        evidence.push(from(completed, "SyncookiesRecv"));
    } else {
        let why = "no cookies were sent, or nobody counted those that came back";
        unknown.push(format!("how many of these clients would complete a connection: {why}"));
    }
    Diagnosis { cause, certainty, why, evidence, remedies: remedies(facts, cause), unknown }
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
