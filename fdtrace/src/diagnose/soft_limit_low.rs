//! The soft limit bites below the hard one: the process could have more, and did not ask.

use std::fmt::Write;

use super::{
    Bite, Failed, LimitFacts, hard_limit_low, limits_as_evidence,
    origin::Origin,
    remedy,
    words::{Raises, raises, runtime, the_limit},
};
use crate::model::{Cause, Certainty, Diagnosis, Evidence, Runtime, Value, When};

pub(super) fn diagnose(
    facts: &LimitFacts<'_>,
    bite: Bite,
    origin: &Origin<'_>,
) -> Option<Diagnosis> {
    if bite.soft >= bite.hard || (facts.failed == Failed::Nothing && !bite.is_low()) {
        return None;
    }
    let provenance = facts.provenance;
    let mut why = the_limit(bite);
    // What raises its own limit did not get this one from whom it descends from.
    let is_lowered = raises(&provenance.runtime) == Raises::Yes
        && origin.explained.is_none()
        && origin.holder == 0;
    if !is_lowered {
        why.push_str(&hard_limit_low::inherited(facts, bite, origin));
    }
    let mut unknown = provenance.unknown.clone();
    let mut evidence = limits_as_evidence(facts, bite);
    evidence.extend(hard_limit_low::ancestor(facts, origin));
    evidence.extend(hard_limit_low::governing(facts, bite, origin));
    let made_of = runtime(&provenance.runtime);
    if let Some(made_of) = &made_of {
        evidence.push(Evidence {
            fact: "runtime",
            value: Value::Text(made_of.clone()),
            unit: None,
            source: None,
        });
    }
    let made_of = made_of.unwrap_or_default();
    match (raises(&provenance.runtime), &provenance.runtime) {
        (Raises::No, Runtime::Go(_)) => {
            let _ = write!(
                why,
                "; it is built with {made_of}, and only since 1.19 does Go raise it to the hard one"
            );
        }
        (Raises::No, Runtime::Java { .. }) => {
            why.push_str("; -XX:-MaxFDLimit keeps Java from raising it to the hard one");
        }
        (Raises::No, _) => {
            let _ = write!(why, "; {made_of} leaves it as it is");
        }
        (Raises::Yes, _) => {
            let _ = write!(
                why,
                "; {made_of} raises it to the hard one at start, so it was lowered, or the hard \
                 one raised, after that"
            );
        }
        (Raises::Unknown, _) => {}
    }
    if provenance.runtime == Runtime::Unknown {
        unknown.push("what the program is made of: its executable could not be read".into());
    }
    let mut remedies = remedy::now(facts, bite, origin.wanted(bite));
    if is_lowered {
        let text = format!(
            "find out what changes its limits while it runs (prlimit, a script, the program \
             itself): {made_of} takes all of its hard limit whenever it starts"
        );
        remedies.push(remedy::remedy(When::ForGood, text, None));
    } else {
        remedies.extend(remedy::for_good(facts, bite, origin.holder, origin.wanted(bite)));
    }
    // That it could have more follows from its two limits alone.
    let certainty =
        if provenance.chain.is_empty() { Certainty::Likely } else { Certainty::Certain };
    Some(Diagnosis { cause: Cause::SoftLimitLow, certainty, why, evidence, remedies, unknown })
}
