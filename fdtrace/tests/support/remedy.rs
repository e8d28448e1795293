//! What fdtrace says of an episode, and doing what it says: with nothing that the test knows itself.

#![allow(clippy::print_stdout, reason = "a test's log should show what was said and done")]

use std::process::Command;

use serde_json::Value;

use super::{Fdtrace, json::same};

/// The report of why an episode happens.
pub(crate) struct Diagnosed(pub(crate) Value);

impl Diagnosed {
    /// Waits for that of an episode with those fields, and shows it.
    #[track_caller]
    pub(crate) fn of(fdtrace: &mut Fdtrace, fields: &Value) -> Self {
        Self::shown(fdtrace.reported("episode_diagnosed", fields))
    }

    /// Waits for the one that tells that cause of it, at once or after some seconds.
    #[track_caller]
    pub(crate) fn with(fdtrace: &mut Fdtrace, fields: &Value, cause: &str) -> Self {
        let is_it = |report: &Value| {
            let diagnoses = report["diagnoses"].as_array();
            same(report, fields)
                && diagnoses.is_some_and(|all| all.iter().any(|one| one["cause"] == cause))
        };
        Self::shown(fdtrace.find(is_it, &format!("{cause} of {fields}")))
    }

    #[track_caller]
    fn shown(report: Value) -> Self {
        let this = Self(report);
        for diagnosis in this.0["diagnoses"].as_array().expect("diagnoses") {
            println!("    {} ({})", text(&diagnosis["cause"]), text(&diagnosis["certainty"]));
            println!("      why   {}", text(&diagnosis["why"]));
            for remedy in diagnosis["remedies"].as_array().expect("remedies") {
                println!("      {:5} {}", text(&remedy["when"]), text(&remedy["text"]));
                if let Some(command) = remedy["command"].as_str() {
                    println!("            $ {command}");
                }
            }
            for unknown in diagnosis["unknown"].as_array().expect("unknown") {
                println!("      ?     {}", text(unknown));
            }
        }
        this
    }

    /// The first diagnosis: the one to act on.
    pub(crate) fn first(&self) -> &Value {
        &self.0["diagnoses"][0]
    }

    /// The one with that cause.
    #[track_caller]
    pub(crate) fn of_cause(&self, cause: &str) -> &Value {
        let mut diagnoses = self.0["diagnoses"].as_array().expect("diagnoses").iter();
        diagnoses.find(|one| one["cause"] == cause).unwrap_or_else(|| panic!("no {cause}"))
    }

    /// Fails unless the first diagnosis is that, as sure as that, and says all of those.
    #[track_caller]
    pub(crate) fn is(&self, cause: &str, certainty: &str, says: &[&str]) {
        let first = self.first();
        assert_eq!(
            (text(&first["cause"]), text(&first["certainty"])),
            (cause, certainty),
            "{first:#}"
        );
        for part in says {
            assert!(text(&first["why"]).contains(part), "{part:?} is not in {:#}", first["why"]);
        }
    }

    /// Where a fact of the first diagnosis was read.
    #[track_caller]
    pub(crate) fn source(&self, fact: &str) -> &str {
        let evidence = self.first()["evidence"].as_array().expect("evidence");
        let found = evidence.iter().find(|evidence| evidence["fact"] == fact);
        let source = found.and_then(|evidence| evidence["source"].as_str());
        source.unwrap_or_else(|| panic!("no source of {fact} in {:#}", self.first()))
    }

    /// What to do: the texts of the first diagnosis's remedies, now or for good.
    pub(crate) fn texts(&self, when: &str) -> Vec<&str> {
        self.remedies(when).map(|remedy| text(&remedy["text"])).collect()
    }

    /// The commands among them.
    pub(crate) fn commands(&self, when: &str) -> Vec<&str> {
        self.remedies(when).filter_map(|remedy| remedy["command"].as_str()).collect()
    }

    /// The command to take: of those for now the mildest.
    #[track_caller]
    pub(crate) fn command(&self, when: &str) -> &str {
        let commands = self.commands(when);
        commands.first().unwrap_or_else(|| panic!("no command {when} in {:#}", self.first()))
    }

    fn remedies(&self, when: &str) -> impl Iterator<Item = &Value> {
        let remedies = self.first()["remedies"].as_array().expect("remedies");
        remedies.iter().filter(move |remedy| remedy["when"] == when)
    }
}

#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Carries out a command as an operator does who copies it.
#[track_caller]
pub(crate) fn carry_out(command: &str) {
    println!("    $ {command}");
    let status = Command::new("sh").args(["-c", command]).status().expect("run sh");
    assert!(status.success(), "{command}: {status}");
}
