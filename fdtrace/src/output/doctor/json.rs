//! One JSON object.
//!
//! The names and the meaning of fields are promised: docs/doctor.md and docs/doctor.schema.json
//! describe every one of them, and tests hold real output against both.

use std::io;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::ser::Serializer;

use crate::{
    model::{
        self, DoctorReport, DoctorVerdict, FactState, FormExamined, FormOutcome, ProbeExamined,
        SelfTest,
    },
    output::json::{Visible, view::SCHEMA},
};

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    time: String,
    kind: &'static str,
    version: &'a str,
    kernel: &'a str,
    machine: &'a str,
    verdict: &'static str,
    why: Option<&'a str>,
    facts: Vec<Fact<'a>>,
    probes: Vec<Probe<'a>>,
    unseen: Vec<BlindSpot<'a>>,
    self_test: Test<'a>,
    cost: Cost<'a>,
}

#[derive(Serialize)]
struct Fact<'a> {
    name: &'a str,
    state: &'static str,
    value: &'a str,
    consequence: Option<&'a str>,
    remedy: Option<&'a str>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON fields")]
struct Probe<'a> {
    probe: &'a str,
    form: &'a str,
    on_request: bool,
    points: &'a [String],
    forms: Vec<Form<'a>>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON fields")]
struct Form<'a> {
    form: &'a str,
    outcome: &'static str,
    why: Option<&'a str>,
}

#[derive(Serialize)]
struct BlindSpot<'a> {
    what: &'a str,
    why: &'a str,
    remedy: Option<&'a str>,
}

#[derive(Serialize)]
struct Test<'a> {
    not_run: Option<&'a str>,
    own_namespace: Option<bool>,
    duration_s: Option<f64>,
    checks: Vec<Check<'a>>,
}

#[derive(Serialize)]
struct Check<'a> {
    door: &'a str,
    failure: &'a str,
    made: u64,
    seen: Option<u64>,
}

#[derive(Serialize)]
struct Cost<'a> {
    not_measured: Option<&'a str>,
    programs: Vec<Program<'a>>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the JSON fields")]
struct Program<'a> {
    program: &'a str,
    runs: u64,
    run_time_ns: u64,
    instructions: Option<u64>,
    jited: Option<bool>,
}

/// The object, on one line.
pub fn doctor_json(report: &DoctorReport) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut line, Visible);
    Report::new(report).serialize(&mut serializer)?;
    line.push(b'\n');
    Ok(line)
}

impl<'a> Report<'a> {
    fn new(report: &'a DoctorReport) -> Self {
        let DoctorReport {
            at,
            version,
            kernel,
            machine,
            verdict,
            facts,
            probes,
            unseen,
            self_test,
            costs,
        } = report;
        // Out of range only where the host's clock is thousands of years off.
        let at = Timestamp::try_from(*at).unwrap_or_default();
        let (verdict, why) = match verdict {
            DoctorVerdict::Works => ("works", None),
            DoctorVerdict::Untested(why) => ("untested", Some(why.as_str())),
            DoctorVerdict::Blind(why) => ("blind", Some(why.as_str())),
            DoctorVerdict::Unsupported(why) => ("unsupported", Some(why.as_str())),
            DoctorVerdict::NotPermitted(why) => ("not_permitted", Some(why.as_str())),
            DoctorVerdict::Failed(why) => ("failed", Some(why.as_str())),
        };
        Self {
            schema: SCHEMA,
            time: format!("{at:.3}"),
            kind: "doctor",
            version,
            kernel,
            machine,
            verdict,
            why,
            facts: facts.iter().map(Fact::new).collect(),
            probes: probes.iter().map(Probe::new).collect(),
            unseen: unseen.iter().map(BlindSpot::new).collect(),
            self_test: Test::new(self_test.as_ref()),
            cost: Cost::new(costs.as_deref()),
        }
    }
}

impl<'a> Fact<'a> {
    fn new(fact: &'a model::Fact) -> Self {
        let model::Fact { name, state, value, consequence, remedy } = fact;
        let state = match state {
            FactState::Good => "good",
            FactState::Less => "less",
            FactState::Bad => "bad",
            FactState::Unknown => "unknown",
        };
        let (consequence, remedy) = (consequence.as_deref(), remedy.as_deref());
        Self { name, state, value, consequence, remedy }
    }
}

impl<'a> Probe<'a> {
    fn new(probe: &'a ProbeExamined) -> Self {
        let ProbeExamined { probe, used, on_request, points, forms } = probe;
        let form = |examined: &'a FormExamined| {
            let FormExamined { form, outcome } = examined;
            let (outcome, why) = match outcome {
                FormOutcome::Works => ("works", None),
                FormOutcome::Lacks(why) => ("lacks", Some(why.as_str())),
                FormOutcome::Forbidden(why) => ("forbidden", Some(why.as_str())),
                FormOutcome::Failed(why) => ("failed", Some(why.as_str())),
                FormOutcome::NotTried(why) => ("not_tried", Some(why.as_str())),
            };
            Form { form, outcome, why }
        };
        let forms = forms.iter().map(form).collect();
        Self { probe, form: used, on_request: *on_request, points, forms }
    }
}

impl<'a> BlindSpot<'a> {
    fn new(unseen: &'a model::BlindSpot) -> Self {
        let model::BlindSpot { what, why, remedy } = unseen;
        Self { what, why, remedy: remedy.as_deref() }
    }
}

impl<'a> Test<'a> {
    fn new(test: Result<&'a SelfTest, &'a String>) -> Self {
        let SelfTest { own_namespace, took, checks } = match test {
            Ok(test) => test,
            Err(why) => {
                let not_run = Some(why.as_str());
                return Self { not_run, own_namespace: None, duration_s: None, checks: Vec::new() };
            }
        };
        let check = |check: &'a model::Check| {
            let model::Check { door, failure, made, seen } = check;
            Check { door, failure, made: *made, seen: *seen }
        };
        Self {
            not_run: None,
            own_namespace: Some(own_namespace.is_ok()),
            duration_s: Some(f64::from(u32::try_from(took.as_millis()).unwrap_or(u32::MAX)) / 1e3),
            checks: checks.iter().map(check).collect(),
        }
    }
}

impl<'a> Cost<'a> {
    fn new(costs: Result<&'a [model::ProgramCost], &'a String>) -> Self {
        let costs = match costs {
            Ok(costs) => costs,
            Err(why) => return Self { not_measured: Some(why), programs: Vec::new() },
        };
        let program = |cost: &'a model::ProgramCost| {
            let model::ProgramCost { program, runs, time, instructions, is_jited } = cost;
            Program {
                program,
                runs: *runs,
                run_time_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
                instructions: *instructions,
                jited: *is_jited,
            }
        };
        Self { not_measured: None, programs: costs.iter().map(program).collect() }
    }
}
