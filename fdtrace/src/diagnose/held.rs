//! What fills a process's table of descriptors: a leak, real load, both, or something of which
//! nobody can say.

use super::{
    evidence::{self, at_least, from, of_open, percent, text},
    growth::{Growth, growth},
    leak, load,
};
use crate::model::{
    Acceptor, BootTime, Cause, Census, Certainty, Diagnosis, EarlierCensus, FdSample,
};

/// What a process's descriptors are, and how they became so.
#[derive(Clone, Copy, Debug)]
pub struct HeldFacts<'a> {
    /// What is open.
    pub census: &'a Census,
    /// When.
    pub at: BootTime,
    /// How many were open before, the oldest first; empty where nobody looked.
    pub before: &'a [FdSample],
    /// What was open when it was first close to its limit, where somebody looked.
    pub earlier: Option<&'a EarlierCensus>,
    /// What its threads do, where that is known.
    pub acceptor: Option<&'a Acceptor>,
}

/// A cause, and which part of all descriptors it accounts for.
pub(super) struct Candidate {
    pub(super) share: f64,
    pub(super) diagnosis: Diagnosis,
}

/// A part from here on is a cause of its own; below, it is what any server has.
const PART: f64 = 0.25;
/// From here on it is the cause.
pub(super) const MOST: f64 = 0.5;

/// Says why a process has so many descriptors. The first is what there is most of. With nothing
/// that stands out, it says just that: [`Cause::Unknown`].
#[must_use]
pub fn held(facts: &HeldFacts<'_>) -> Vec<Diagnosis> {
    let growth = growth(facts.before);
    let mut candidates: Vec<Candidate> =
        leak::candidates(facts).into_iter().chain(load::candidate(facts.census)).collect();
    candidates.retain(|candidate| at_least(facts.census, candidate.share) >= PART);
    candidates.sort_by(|a, b| b.share.total_cmp(&a.share));
    if candidates.is_empty() {
        return vec![unknown(facts, growth)];
    }
    let is_mixed = candidates[0].share < MOST;
    let diagnoses = candidates.into_iter().map(|Candidate { share, mut diagnosis }| {
        if is_mixed || share < MOST {
            diagnosis.certainty = Certainty::Likely;
        }
        add_context(&mut diagnosis, facts, growth);
        diagnosis
    });
    diagnoses.collect()
}

fn add_context(diagnosis: &mut Diagnosis, facts: &HeldFacts<'_>, growth: Option<Growth>) {
    diagnosis.evidence.extend(evidence::census(facts.census));
    diagnosis.unknown.extend(facts.census.unknown.iter().cloned());
    if let Some(growth) = growth {
        diagnosis.evidence.push(evidence::rate("growth", growth.per_second, "file descriptors"));
        diagnosis.evidence.push(evidence::lasting("growth_over", growth.lasting));
    } else if facts.before.is_empty() && facts.earlier.is_none() {
        diagnosis.unknown.push("how it grew: nobody looked before".to_owned());
    }
}

fn unknown(facts: &HeldFacts<'_>, growth: Option<Growth>) -> Diagnosis {
    let census = facts.census;
    let shown = census.kinds.iter().take(3);
    let kinds: Vec<String> =
        shown.map(|(kind, count)| format!("{} {kind}", percent(census.share(*count)))).collect();
    let (why, certainty) = match census.kinds.first() {
        Some((kind, count)) if census.share(*count) >= MOST => {
            let most = of_open(census, *count);
            (
                format!("{most} are {kind}; whether it needs them, nobody but its authors can say"),
                Certainty::Likely,
            )
        }
        _ => {
            (format!("no one kind fills its descriptors: {}", kinds.join(", ")), Certainty::Likely)
        }
    };
    let mut diagnosis = Diagnosis {
        cause: Cause::Unknown,
        certainty,
        why,
        evidence: census
            .kinds
            .iter()
            .take(3)
            .map(|(kind, count)| from(text("kind", format!("{count} {kind}")), evidence::CENSUS))
            .collect(),
        remedies: Vec::new(),
        unknown: Vec::new(),
    };
    add_context(&mut diagnosis, facts, growth);
    diagnosis
}

#[cfg(test)]
mod tests;
