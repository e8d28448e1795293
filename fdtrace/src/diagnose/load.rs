//! As many connections as descriptors.

use std::time::Duration;

use super::{
    evidence::{CENSUS, count, from, lasting, of_open, several, span, text},
    held::Candidate,
};
use crate::model::{Cause, Census, Certainty, Diagnosis, Evidence, Peer, Remedy, TcpState, When};

/// A client that has said nothing for so long may not be there any more.
const LONG_SILENT: Duration = Duration::from_secs(300);

/// Real load, and how much of the descriptors it accounts for.
pub(super) fn candidate(census: &Census) -> Option<Candidate> {
    let clients: u64 = census.listeners.iter().map(|share| share.established).sum();
    if clients == 0 {
        return None;
    }
    let established = census.tcp(TcpState::Established);
    let onward = established.saturating_sub(clients);
    // A proxy has one connection onward for each client, or nearly so.
    let is_proxy = onward * 10 >= clients * 8 && onward * 10 <= clients * 12;
    let number = if is_proxy { clients + onward } else { clients };

    let mut evidence = vec![from(count("clients_connected", clients, "connections"), CENSUS)];
    let busiest = census.listeners.iter().max_by_key(|share| share.established)?;
    evidence.push(from(text("listener", busiest.address.to_string()), CENSUS));
    let mut unknown = Vec::new();
    let mut why = format!(
        "{} are established connections of clients on {}",
        of_open(census, clients),
        busiest.address
    );
    if is_proxy {
        why = format!("{why}, and {onward} lead onward from there, one for each");
        evidence.push(from(count("onward", onward, "connections"), CENSUS));
    }
    let is_one = add_peers(census, clients, &mut why, &mut evidence);
    if is_one {
        unknown.push("whether that one stands for many (a proxy), or opens too many".to_owned());
    }
    let silence = census.silence_of(TcpState::Established).filter(|of| of.median >= LONG_SILENT);
    if let Some(silence) = silence {
        why =
            format!("{why}; half of them have been silent for {} or longer", span(silence.median));
        evidence.push(from(lasting("silent_for", silence.median), "TCP_INFO"));
        evidence.push(from(lasting("silent_longest", silence.longest), "TCP_INFO"));
        unknown.push("whether the silent ones are still there".to_owned());
    }
    let is_certain = !is_one && silence.is_none();
    let certainty = if is_certain { Certainty::Certain } else { Certainty::Likely };
    let remedies = remedies(silence.is_some(), is_one);
    let diagnosis = Diagnosis { cause: Cause::Load, certainty, why, evidence, remedies, unknown };
    Some(Candidate { share: census.share(number), diagnosis })
}

/// Says how many clients there are; whether one has most of the connections.
fn add_peers(
    census: &Census,
    clients: u64,
    why: &mut String,
    evidence: &mut Vec<Evidence>,
) -> bool {
    let at_least = if census.is_sampled() { "at least " } else { "" };
    let distinct = census.distinct_peers.clients;
    let is_client = |peer| matches!(peer, Peer::Client(_));
    let of_clients = census.peers.iter().filter(|share| is_client(share.peer));
    let most = of_clients.max_by_key(|share| share.established);
    evidence.push(from(count("client_addresses", distinct, "addresses"), CENSUS));
    if let Some(most) = most.filter(|most| most.established * 2 >= clients) {
        *why = format!("{why}; one client, {}, has {} of them", most.peer, most.established);
        evidence.push(from(text("peer", most.peer.to_string()), CENSUS));
        evidence.push(from(count("peer_established", most.established, "connections"), CENSUS));
        return true;
    }
    *why = format!("{why}, from {at_least}{}", several(distinct, "address", "addresses"));
    false
}

fn remedies(has_silent: bool, is_one: bool) -> Vec<Remedy> {
    let mut texts = vec![
        "give it as many descriptors as it shall have clients, or more instances; or have it \
         refuse clients beyond a number of its own (nginx worker_connections, haproxy maxconn, \
         redis maxclients)",
    ];
    if has_silent {
        texts.push("set an idle timeout, or TCP keepalive, in the program");
    }
    if is_one {
        texts.push("limit connections per client, there or here (nginx limit_conn)");
    }
    let remedy = |text: &str| Remedy { when: When::ForGood, text: text.to_owned(), command: None };
    texts.into_iter().map(remedy).collect()
}
