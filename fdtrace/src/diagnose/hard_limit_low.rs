//! The hard limit bites: the process cannot have more, and inherited that.

use std::fmt::Write;

use super::{
    Bite, Failed, LimitFacts, Side, limit, limits_as_evidence, number,
    origin::{Origin, value},
    remedy,
    words::{at, directive, directive_at, name, runtime, the_limit},
};
use crate::model::{
    Ancestor, Cause, Certainty, ChainEnd, Diagnosis, Evidence, Place, Runtime, Setting, Value,
};

pub(super) fn diagnose(
    facts: &LimitFacts<'_>,
    bite: Bite,
    origin: &Origin<'_>,
) -> Option<Diagnosis> {
    if bite.soft < bite.hard || (facts.failed == Failed::Nothing && !bite.is_low()) {
        return None;
    }
    let provenance = facts.provenance;
    let mut unknown = provenance.unknown.clone();
    let why = format!("{}{}", the_limit(bite), inherited(facts, bite, origin));
    let mut evidence = limits_as_evidence(facts, bite);
    evidence.extend(ancestor(facts, origin));
    evidence.extend(governing(facts, bite, origin));
    if origin.explained.is_none() {
        unknown.push("which setting gives this limit: none was found that says so".into());
    }
    let is_decided =
        origin.explained.is_some_and(|setting| !matches!(setting.place, Place::BuiltIn(_)));
    let mut remedies = remedy::now(facts, bite, origin.wanted(bite));
    remedies.extend(remedy::for_good(facts, bite, origin.holder, origin.wanted(bite)));
    Some(Diagnosis {
        cause: Cause::HardLimitLow,
        certainty: if is_decided { Certainty::Certain } else { Certainty::Likely },
        why,
        evidence,
        remedies,
        unknown,
    })
}

/// `, inherited from supervisord[812] (also 1024): minfds in FILE:7`, and what is odd about it.
pub(super) fn inherited(facts: &LimitFacts<'_>, bite: Bite, origin: &Origin<'_>) -> String {
    let provenance = facts.provenance;
    let chain = &provenance.chain;
    let mut text = String::new();
    if origin.holder > 0 {
        text.push_str(&from(&chain[origin.holder], bite));
    }
    let own = chain.first().and_then(|own| own.settings.first());
    // Who raises its limit by itself raises both.
    let is_own = |setting: &&Setting| {
        setting.only_raises() && setting.soft.is_none() && bite.soft == bite.hard
    };
    if let Some(setting) = origin.explained {
        let _ = write!(text, ": {}", directive_at(setting));
    } else if let Some(setting) = own.filter(is_own).filter(|_| origin.holder == 0) {
        let _ = write!(
            text,
            ", which it was given, or has set itself by {}: its configuration was not found",
            directive(setting)
        );
    } else if let (Some(above), Some(process)) =
        (origin.above, chain.get(origin.holder + 1).filter(|_| !chain.is_empty()))
    {
        let of_above = match bite.side() {
            Side::Soft => above.soft,
            Side::Hard => above.hard,
        };
        // A higher one was lowered on the way, or raised since.
        if number(of_above) > bite.soft {
            let _ = write!(
                text,
                "; its parent {} has {of_above}: it was lowered when it started, or the parent's \
                 was raised later",
                name(process)
            );
        } else {
            let _ = write!(text, "; its parent {} has {of_above}", name(process));
        }
    }
    for setting in &origin.contradicts {
        if let Some(value) = value(setting, bite.side()) {
            let _ = write!(
                text,
                "; {} says {}, and no date tells why that is not in force",
                directive_at(setting),
                limit(value)
            );
        }
    }
    let login = provenance.login.as_ref().filter(|login| login.applies == Some(false));
    let higher = login
        .into_iter()
        .flat_map(|login| &login.settings)
        .find(|setting| value(setting, bite.side()).is_some_and(|value| value > bite.soft));
    if let Some(setting) = higher
        && let Place::File(file) = &setting.place
    {
        let value = value(setting, bite.side()).unwrap_or_default();
        let _ = write!(
            text,
            "; {} says {}, but PAM applies that to logins, not to services",
            at(file),
            limit(value)
        );
    }
    text.push_str(&raised_its_own(origin));
    if let ChainEnd::Unreadable(_) = &provenance.chain_end
        && origin.above.is_none()
        && !chain.is_empty()
    {
        text.push_str("; what is above it could not be read");
    }
    text
}

/// `, inherited from supervisord[812] (also 1024)`
pub(super) fn from(holder: &Ancestor, bite: Bite) -> String {
    let also = holder.limits.is_some_and(|limits| number(limits.soft) == bite.soft);
    let also = if also { format!(" (also {})", bite.soft) } else { String::new() };
    format!(", inherited from {}{also}", name(holder))
}

/// Why an ancestor has another limit than it gave.
pub(super) fn raised_its_own(origin: &Origin<'_>) -> String {
    let Some((process, limits)) = origin.past.and_then(|past| Some((past, past.limits?))) else {
        return String::new();
    };
    format!(
        "; {} has {}: Go raises its own limit only, and starts others with the one it got",
        name(process),
        limits.soft
    )
}

/// The ancestor that the limit comes from.
pub(super) fn ancestor(facts: &LimitFacts<'_>, origin: &Origin<'_>) -> Vec<Evidence> {
    let Some(holder) = facts.provenance.chain.get(origin.holder).filter(|_| origin.holder > 0)
    else {
        return Vec::new();
    };
    let mut evidence = vec![Evidence {
        fact: "ancestor",
        value: Value::Text(name(holder)),
        unit: None,
        source: Some(format!("/proc/{}/limits", holder.id.pid)),
    }];
    if let Some(date) = holder.started_at {
        evidence.push(Evidence {
            fact: "ancestor_started",
            value: Value::Date(date),
            unit: None,
            source: Some(format!("/proc/{}/stat", holder.id.pid)),
        });
    }
    evidence.extend(go(origin));
    evidence
}

/// The Go of an ancestor that gave on what it got.
pub(super) fn go(origin: &Origin<'_>) -> Option<Evidence> {
    let past = origin.past?;
    Some(Evidence {
        fact: "ancestor_runtime",
        value: Value::Text(runtime(&Runtime::Go(past.go.clone()?))?),
        unit: None,
        source: Some(format!("/proc/{}/exe", past.id.pid)),
    })
}

/// The setting that explains the limit.
pub(super) fn governing(
    facts: &LimitFacts<'_>,
    bite: Bite,
    origin: &Origin<'_>,
) -> Option<Evidence> {
    let setting = origin.explained?;
    let source = match &setting.place {
        Place::File(file) => Some(at(file)),
        Place::BuiltIn(file) => file.as_ref().map(|file| file.path.display().to_string()),
        Place::CommandLine => facts
            .provenance
            .chain
            .get(origin.holder)
            .map(|one| format!("/proc/{}/cmdline", one.id.pid)),
    };
    Some(Evidence {
        fact: "configured_limit",
        value: Value::Count(value(setting, bite.side())?),
        unit: Some("file descriptors"),
        source,
    })
}
