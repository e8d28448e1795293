//! The JSON form of a diagnosis.

use jiff::Timestamp;
use serde::Serialize;

use crate::model::{self, Value, When};

#[derive(Serialize)]
pub(in crate::output) struct Diagnosis<'a> {
    cause: &'static str,
    certainty: &'static str,
    why: &'a str,
    evidence: Vec<Evidence<'a>>,
    remedies: Vec<Remedy<'a>>,
    unknown: &'a [String],
}

#[derive(Serialize)]
struct Evidence<'a> {
    fact: &'static str,
    value: serde_json::Value,
    unit: Option<&'static str>,
    source: Option<&'a str>,
}

#[derive(Serialize)]
pub(in crate::output) struct Remedy<'a> {
    when: &'static str,
    text: &'a str,
    command: Option<&'a str>,
}

impl<'a> Diagnosis<'a> {
    pub(in crate::output) fn new(diagnosis: &'a model::Diagnosis) -> Self {
        let model::Diagnosis { cause, certainty, why, evidence, remedies, unknown } = diagnosis;
        Self {
            cause: cause.name(),
            certainty: certainty.name(),
            why,
            evidence: evidence.iter().map(Evidence::new).collect(),
            remedies: remedies.iter().map(Remedy::new).collect(),
            unknown,
        }
    }
}

impl<'a> Evidence<'a> {
    fn new(evidence: &'a model::Evidence) -> Self {
        let model::Evidence { fact, value, unit, source } = evidence;
        let (value, own_unit) = match value {
            Value::Count(count) => ((*count).into(), None),
            Value::Unlimited => ("unlimited".into(), None),
            Value::Share(share) => ((*share).into(), Some("share of 1")),
            Value::PerSecond(rate) => ((*rate).into(), Some("per second")),
            Value::Lasting(span) => (span.as_secs_f64().into(), Some("seconds")),
            Value::Date(date) => {
                let date = Timestamp::try_from(*date).unwrap_or_default();
                (format!("{date:.3}").into(), None)
            }
            Value::Text(text) => (text.as_str().into(), None),
        };
        Self { fact, value, unit: unit.or(own_unit), source: source.as_deref() }
    }
}

impl<'a> Remedy<'a> {
    pub(in crate::output) fn new(remedy: &'a model::Remedy) -> Self {
        let model::Remedy { when, text, command } = remedy;
        Self {
            when: match when {
                When::Now => "now",
                When::ForGood => "for_good",
            },
            text,
            command: command.as_deref(),
        }
    }
}
