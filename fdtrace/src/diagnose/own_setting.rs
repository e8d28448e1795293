//! The program sets its own limit, from its own configuration.

use super::{
    Bite, Failed, LimitFacts, limits_as_evidence,
    origin::{Origin, value},
    remedy,
    words::{directive_at, name, the_limit},
};
use crate::model::{Cause, Certainty, Diagnosis, Evidence, Place, SettingSource, Value};

pub(super) fn diagnose(
    facts: &LimitFacts<'_>,
    bite: Bite,
    origin: &Origin<'_>,
) -> Option<Diagnosis> {
    let setting = origin.explained?;
    let SettingSource::Own { program } = setting.source else { return None };
    if facts.failed == Failed::Nothing && !bite.is_low() {
        return None;
    }
    let own = facts.provenance.chain.first()?;
    let why =
        format!("{}, which {} sets itself: {}", the_limit(bite), name(own), directive_at(setting));
    let mut evidence = limits_as_evidence(facts, bite);
    let source = match &setting.place {
        Place::File(file) => Some(super::words::at(file)),
        Place::BuiltIn(file) => file.as_ref().map(|file| file.path.display().to_string()),
        Place::CommandLine => Some(format!("/proc/{}/cmdline", own.id.pid)),
    };
    if let Some(value) = value(setting, bite.side()) {
        let unit = Some("file descriptors");
        let value = Value::Count(value);
        evidence.push(Evidence { fact: "configured_limit", value, unit, source });
    }
    evidence.push(Evidence {
        fact: "directive",
        value: Value::Text(program.directive().into()),
        unit: None,
        source: None,
    });
    let mut remedies = remedy::now(facts, bite, None);
    remedies.extend(remedy::for_good(facts, bite, origin.holder, None));
    Some(Diagnosis {
        cause: Cause::OwnSetting,
        // That it is the default's value may be chance.
        certainty: match setting.place {
            Place::BuiltIn(_) => Certainty::Likely,
            _ => Certainty::Certain,
        },
        why,
        evidence,
        remedies,
        unknown: facts.provenance.unknown.clone(),
    })
}
