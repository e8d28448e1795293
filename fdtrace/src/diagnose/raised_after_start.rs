//! A setting was raised, and the process it governs started before that.

use super::{
    Bite, Failed, LimitFacts, hard_limit_low, limit, limits_as_evidence,
    origin::{Origin, Raised},
    remedy::{self, next_run, remedy, restart_of, restart_of_script},
    words::{at, directive, name, span, the_limit},
};
use crate::model::{
    Cause, Certainty, Diagnosis, Evidence, Remedy, Role, SettingSource, Value, When,
};

pub(super) fn diagnose(
    facts: &LimitFacts<'_>,
    bite: Bite,
    origin: &Origin<'_>,
) -> Option<Diagnosis> {
    let raised = origin.raised?;
    let chain = &facts.provenance.chain;
    let process = &chain[raised.at];
    let subject = if raised.at == 0 {
        "; it".to_owned()
    } else {
        format!("{}, which", hard_limit_low::from(process, bite))
    };
    let what = match &raised.setting.source {
        SettingSource::Login { .. } => at(raised.file),
        _ => format!("{} in {}", directive(raised.setting), at(raised.file)),
    };
    let how = if raised.by_content { "was changed to" } else { "was put in place, which says" };
    let mut why = format!(
        "{}{subject} started {} before {what} {how} {}",
        the_limit(bite),
        span(raised.after),
        limit(raised.value),
    );
    why.push_str(&hard_limit_low::raised_its_own(origin));
    let mut unknown = facts.provenance.unknown.clone();
    if !raised.applies {
        unknown.push(format!(
            "whether {} descends from a login: only to logins does PAM apply {}",
            name(process),
            raised.file.path.display()
        ));
    }
    if bite.soft < bite.hard && facts.failed == Failed::Nothing {
        why.push_str("; the process could raise it itself");
    }
    let is_certain = raised.applies && raised.by_content;
    let mut remedies = remedy::now(facts, bite, Some(raised.value));
    remedies.extend(keep(facts, bite, origin, &raised));
    Some(Diagnosis {
        cause: Cause::RaisedAfterStart,
        certainty: if is_certain { Certainty::Certain } else { Certainty::Likely },
        why,
        evidence: evidence(facts, bite, origin, &raised),
        remedies,
        unknown,
    })
}

fn evidence(
    facts: &LimitFacts<'_>,
    bite: Bite,
    origin: &Origin<'_>,
    raised: &Raised<'_>,
) -> Vec<Evidence> {
    let process = &facts.provenance.chain[raised.at];
    let mut evidence = limits_as_evidence(facts, bite);
    let text = |fact, text| Evidence { fact, value: Value::Text(text), unit: None, source: None };
    if raised.at > 0 {
        evidence.push(text("ancestor", name(process)));
    }
    if let Some(date) = process.started_at {
        let fact = if raised.at > 0 { "ancestor_started" } else { "process_started" };
        evidence.push(Evidence {
            fact,
            value: Value::Date(date),
            unit: None,
            source: Some(format!("/proc/{}/stat", process.id.pid)),
        });
    }
    evidence.extend(hard_limit_low::go(origin));
    evidence.push(Evidence {
        fact: "configured_limit",
        value: if raised.value == u64::MAX { Value::Unlimited } else { Value::Count(raised.value) },
        unit: Some("file descriptors"),
        source: Some(at(raised.file)),
    });
    let date = if raised.by_content { raised.file.modified } else { raised.file.changed };
    if let Some(date) = date {
        evidence.push(Evidence {
            fact: "configuration_changed",
            value: Value::Date(date),
            unit: None,
            source: Some(raised.file.path.display().to_string()),
        });
    }
    evidence.push(Evidence {
        fact: "started_before_change",
        value: Value::Lasting(raised.after),
        unit: None,
        source: None,
    });
    evidence
}

/// The setting is there: who must be started again, in which order.
fn keep(
    facts: &LimitFacts<'_>,
    bite: Bite,
    origin: &Origin<'_>,
    raised: &Raised<'_>,
) -> Vec<Remedy> {
    let chain = &facts.provenance.chain;
    let process = &chain[raised.at];
    let who = name(process);
    let and_own =
        if raised.at > 0 { format!(", and {} with it", name(&chain[0])) } else { String::new() };
    let simple = |text: String, command| vec![remedy(When::ForGood, text, command)];
    match &raised.setting.source {
        SettingSource::Unit(unit) | SettingSource::UnitDefault(unit) => {
            if process.role == Role::ContainerdShim {
                let text = "the setting is right by now: restart the service, and create the \
                            container anew, whose shim keeps the limit it was started with";
                return simple(text.into(), Some(restart_of(unit)));
            }
            let text = match next_run(Some(process), &chain[0]) {
                Some(next) => {
                    format!("the setting is right by now: restart {}, and {next}", unit.name)
                }
                None => format!("the setting is right by now: restart {}{and_own}", unit.name),
            };
            simple(text, Some(restart_of(unit)))
        }
        SettingSource::Minfds { .. } => {
            let service = process.unit.as_ref().filter(|unit| unit.is_service());
            let text = format!(
                "the setting is right by now: restart {who} itself{and_own}; neither \
                 \"supervisorctl reload\" nor \"update\" sets limits again"
            );
            simple(text, service.map(restart_of))
        }
        SettingSource::Own { .. } => {
            simple(format!("the setting is right by now: restart or reload {who}"), None)
        }
        SettingSource::RunScript => {
            let restart = restart_of_script(raised.file, chain.get(raised.at + 1))
                .filter(|_| process.container.is_none());
            simple(format!("the script is right by now: restart {who}{and_own}"), restart)
        }
        SettingSource::Container { .. } | SettingSource::ContainerDefault { .. } => {
            simple("the setting is right by now: create the container anew".into(), None)
        }
        SettingSource::Login { .. } => {
            // supervisord can raise its limits itself, however it is started the next time.
            let has_minfds = chain.iter().take(origin.holder + 1).any(|one| {
                one.settings
                    .iter()
                    .any(|setting| matches!(setting.source, SettingSource::Minfds { .. }))
            });
            if has_minfds {
                return remedy::for_good(facts, bite, origin.holder, Some(raised.value));
            }
            let next = next_run(chain.get(raised.at + 1), &chain[0]);
            let log_in = || format!("log in again, and start {who} from there{and_own}");
            simple(next.unwrap_or_else(log_in), None)
        }
    }
}
