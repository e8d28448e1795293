//! The kernel's own counters beside fdtrace's.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::model::{CounterPair, Reconciliation};

/// The counters of all network namespaces together, and of each.
#[derive(Serialize)]
pub(super) struct Kernel {
    #[serde(flatten)]
    sums: Counters,
    namespaces: Vec<Namespace>,
}

#[derive(Serialize)]
struct Namespace {
    netns: u32,
    #[serde(flatten)]
    counters: Counters,
}

/// `{"NAME": COUNTER}`
struct Counters(Vec<(&'static str, Counter)>);

#[derive(Serialize)]
struct Counter {
    delta: u64,
    seen: Option<u64>,
    unattributed: Option<i64>,
}

impl Serialize for Counters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, counter) in &self.0 {
            map.serialize_entry(name, counter)?;
        }
        map.end()
    }
}

impl Kernel {
    /// `None` where the kernel's counters could not be read.
    pub(super) fn new(kernel: &[Reconciliation]) -> Option<Self> {
        if kernel.is_empty() {
            return None;
        }
        let namespaces = kernel.iter().map(|Reconciliation { netns, counters }| Namespace {
            netns: *netns,
            counters: Counters::new(counters),
        });
        Some(Self { sums: Counters::new(&sums(kernel)), namespaces: namespaces.collect() })
    }
}

impl Counters {
    fn new(pairs: &[CounterPair]) -> Self {
        let counters = pairs.iter().map(|pair| {
            let CounterPair { name, delta, seen } = *pair;
            (name, Counter { delta, seen, unattributed: pair.unattributed() })
        });
        Self(counters.collect())
    }
}

/// Each counter over all namespaces; what is unknown of one is unknown of all.
fn sums(kernel: &[Reconciliation]) -> Vec<CounterPair> {
    let mut sums: Vec<CounterPair> = Vec::new();
    for pair in kernel.iter().flat_map(|one| &one.counters) {
        match sums.iter_mut().find(|sum| sum.name == pair.name) {
            None => sums.push(*pair),
            Some(sum) => {
                sum.delta = sum.delta.saturating_add(pair.delta);
                sum.seen = sum.seen.zip(pair.seen).map(|(one, other)| one.saturating_add(other));
            }
        }
    }
    sums
}
