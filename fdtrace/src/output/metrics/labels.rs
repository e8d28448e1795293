//! Labels: what tells two figures of a metric apart.

use std::collections::BTreeMap;

use crate::{
    model::{CloseToLimit, Comm, Failure, ListenerAddress, OpenEpisode, Resource, Series, Who},
    output::{json::view, sanitize, terminal::words},
};

/// Names and values. What is unknown is empty, which to Prometheus is the same as no label.
pub(super) type Labels<const N: usize> = [(&'static str, String); N];

/// The value of every label in [`WHO`] of what there was no more room to tell apart.
const OTHER: &str = "other";

/// Labels that have as many values as a host has processes and listeners.
const WHO: [&str; 5] = ["process", "unit", "container", "pod", "listener"];

fn who(who: &Who) -> Labels<5> {
    let Who { process, unit, container, pod, listener } = who;
    let text = |text: &Option<String>| {
        text.as_ref().map(|text| sanitize::escape(text.as_bytes())).unwrap_or_default()
    };
    let comm = |comm: &Comm| sanitize::escape(comm.as_bytes());
    [
        ("process", process.as_ref().map(comm).unwrap_or_default()),
        ("unit", text(unit)),
        ("container", text(container)),
        ("pod", text(pod)),
        ("listener", listener.as_ref().map(address).unwrap_or_default()),
    ]
}

fn address(address: &ListenerAddress) -> String {
    words::address(address)
}

/// `EMFILE`, `accept_queue_full`: as in JSON.
pub(super) fn why(failure: Failure) -> String {
    view::failure(failure).into_owned()
}

pub(super) fn failure(series: Option<&Series>) -> Labels<7> {
    let everybody = || WHO.map(other);
    let [process, unit, container, pod, listener] =
        series.and_then(|series| series.who.as_ref()).map_or_else(everybody, who);
    let (failure, door) = series
        .map_or((OTHER.to_owned(), OTHER), |series| (why(series.failure), series.door.name()));
    let (failure, door) = (("failure", failure), ("door", door.to_owned()));
    [process, unit, container, pod, listener, failure, door]
}

pub(super) fn episode(episode: &OpenEpisode) -> Labels<7> {
    let OpenEpisode { owners, target, failure, cause } = episode;
    let [process, unit, container, pod, listener] = who(&Who::of(owners, target));
    let cause = cause.map(|known| known.cause.name().to_owned()).unwrap_or_default();
    [process, unit, container, pod, listener, ("failure", why(*failure)), ("cause", cause)]
}

pub(super) fn close(close: &CloseToLimit) -> Labels<6> {
    let [process, unit, container, pod, listener] = who(&Who::of(&close.owners, &close.target));
    let resource = match close.resource {
        Resource::Fds(_) => "fds",
        Resource::AcceptQueue => "accept_queue",
    };
    [process, unit, container, pod, listener, ("resource", resource.to_owned())]
}

/// The same labels where there is room for them, else those of the rest, which still say what it is.
pub(super) fn bounded<const N: usize, V>(
    there: &BTreeMap<Labels<N>, V>,
    labels: Labels<N>,
    most: usize,
) -> Labels<N> {
    if there.len() < most || there.contains_key(&labels) {
        return labels;
    }
    labels.map(|(name, value)| if WHO.contains(&name) { other(name) } else { (name, value) })
}

fn other(name: &'static str) -> (&'static str, String) {
    (name, OTHER.to_owned())
}
