//! Who may see whom.

use std::collections::BTreeSet;
use std::path::Path;

use super::tokens::{Token, tokens};

/// The stages, in the order of the flow.
const STAGES: [&str; 6] = ["kernel", "decode", "enrich", "aggregate", "diagnose", "output"];
/// What may see several stages: the wiring, and what starts it.
const WIRING: [&str; 9] =
    ["pipeline", "listeners", "doctor", "explain", "audit", "daemon", "main", "lib", "cli"];
/// Packages that only one module may name: its prefix, and the module.
const RESERVED: [(&str, &str); 4] =
    [("aya", "kernel"), ("clap", "cli"), ("serde", "output"), ("prometheus", "output")];
/// But configuration files of others are JSON too: what is read is no format of ours. And our own
/// is read where the command line is.
const ALSO: [(&str, &str); 2] = [("serde_json", "enrich"), ("serde", "cli")];

/// What is wrong, and where in the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// Checks one file, given by its path below src. `dependencies` are the packages it could name.
pub(crate) fn check(file: &Path, source: &str, dependencies: &BTreeSet<String>) -> Vec<Finding> {
    let module = module_path(file);
    let Some(own) = module.first().map(String::as_str) else {
        return Vec::new();
    };
    let tokens = tokens(source);
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for Token { text: name, line } in modules_named(&tokens, module.len()) {
        let is_stage = STAGES.contains(&name);
        if name == own || WIRING.contains(&own) {
            continue;
        }
        if own == "model" {
            findings.push(Finding { line, what: format!("the model names crate::{name}") });
        } else if STAGES.contains(&own) && (is_stage || WIRING.contains(&name)) {
            findings.push(Finding { line, what: format!("stage {own} names crate::{name}") });
        } else if is_stage && seen.insert(name) && seen.len() == 2 {
            let what = format!("{own} names a second stage, crate::{name}: only the wiring may");
            findings.push(Finding { line, what });
        }
    }
    for Token { text: word, line } in packages_named(&tokens, dependencies) {
        if own == "model" {
            let what = format!("the model names {word}: it is made of std only");
            findings.push(Finding { line, what });
        }
        for (prefix, owner) in RESERVED {
            let is_of_it = word == prefix || word.starts_with(&format!("{prefix}_"));
            let is_allowed = own == owner || own == "model" || ALSO.contains(&(word, own));
            if is_of_it && !is_allowed {
                let what = format!("{own} names {word}: it lives in {owner} only");
                findings.push(Finding { line, what });
            }
        }
    }
    findings.sort_by_key(|finding| finding.line);
    findings
}

/// The packages that a file names: at the start of a path, or as a whole `use`. Anywhere else the
/// same word is a name of ours.
fn packages_named<'a>(tokens: &[Token<'a>], dependencies: &BTreeSet<String>) -> Vec<Token<'a>> {
    let text = |at: Option<usize>| at.and_then(|at| tokens.get(at)).map(|token| token.text);
    let is_named = |at: usize| match (text(at.checked_sub(1)), text(Some(at + 1))) {
        (Some("." | "::"), _) => false,
        (Some("use"), _) | (_, Some("::")) => true,
        _ => false,
    };
    let named = tokens
        .iter()
        .enumerate()
        .filter(|(at, token)| dependencies.contains(token.text) && is_named(*at));
    named.map(|(_, token)| *token).collect()
}

/// `kernel/plan.rs` is module `kernel::plan`; `kernel/mod.rs` and `kernel.rs` are kernel.
fn module_path(file: &Path) -> Vec<String> {
    let mut module: Vec<_> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// The modules of the crate's root that a file names: after `crate::`, alone or in braces, and
/// after as many `super::` as lead out of a module at this depth.
fn modules_named<'a>(tokens: &[Token<'a>], depth: usize) -> Vec<Token<'a>> {
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    let mut named = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let mut after = at;
        let mut supers = 0;
        while is(after, "super") && is(after + 1, "::") {
            supers += 1;
            after += 2;
        }
        if is(at, "crate") && is(at + 1, "::") {
            after = at + 2;
            supers = depth;
        }
        if after == at {
            at += 1;
            continue;
        }
        if supers >= depth {
            named.extend(heads(&tokens[after..]));
        }
        at = after;
    }
    named
}

/// The first word of a path, or of each path in the braces that are here.
fn heads<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let Some(first) = tokens.first() else {
        return Vec::new();
    };
    if first.text != "{" {
        return vec![*first];
    }
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut starts = false;
    for token in tokens {
        match token.text {
            "{" => {
                depth += 1;
                starts = depth == 1;
            }
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," => starts = depth == 1,
            _ if starts => {
                heads.push(*token);
                starts = false;
            }
            _ => {}
        }
    }
    heads
}

#[cfg(test)]
mod tests {
    use super::check;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn findings(file: &str, source: &str) -> Vec<String> {
        let names = ["aya", "aya_obj", "clap", "serde", "serde_json", "libc"];
        let dependencies: BTreeSet<_> = names.map(str::to_owned).into();
        let found = check(Path::new(file), source, &dependencies);
        found.into_iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
    }

    #[test]
    fn a_stage_may_name_itself_and_the_model() {
        let source =
            "use crate::model::{Event, Process};\nuse crate::decode::wire;\nuse libc::pid_t;";
        assert!(findings("decode/mod.rs", source).is_empty());
    }

    #[test]
    fn a_stage_may_not_name_another() {
        let source = "use crate::model::Event;\nfn f() { crate::enrich::proc::read() }";
        assert_eq!(findings("decode.rs", source), ["2: stage decode names crate::enrich"]);
        let source = "use crate::{model::{a, output}, output::json, pipeline};";
        let want =
            ["1: stage diagnose names crate::output", "1: stage diagnose names crate::pipeline"];
        assert_eq!(findings("diagnose/leak.rs", source), want);
    }

    #[test]
    fn climbing_out_of_a_stage_is_naming_another() {
        let source = "use super::super::output::json;\nuse super::output;";
        assert_eq!(findings("kernel/plan.rs", source), ["1: stage kernel names crate::output"]);
    }

    #[test]
    fn only_the_wiring_sees_several_stages() {
        let source = "use crate::decode::a;\nuse crate::decode::b;\nuse crate::output::c;";
        assert!(findings("pipeline.rs", source).is_empty());
        assert!(findings("cli/args.rs", source).is_empty());
        let want = ["3: clock names a second stage, crate::output: only the wiring may"];
        assert_eq!(findings("clock.rs", source), want);
    }

    #[test]
    fn reserved_packages_stay_where_they_live() {
        assert!(findings("kernel/load.rs", "use aya::Ebpf;").is_empty());
        assert_eq!(
            findings("pipeline.rs", "use aya_obj::Object;\n#[derive(clap::Parser)]"),
            [
                "1: pipeline names aya_obj: it lives in kernel only",
                "2: pipeline names clap: it lives in cli only"
            ]
        );
        assert!(findings("decode.rs", "let serde = self.serde; // serde::de").is_empty());
        assert!(findings("enrich/docker.rs", "use serde_json::Value;").is_empty());
        assert!(findings("cli/config/raw.rs", "use serde::Deserialize;").is_empty());
        assert_eq!(
            findings("enrich/docker.rs", "use serde::Serialize;"),
            ["1: enrich names serde: it lives in output only"]
        );
        assert_eq!(
            findings("decode.rs", "use serde_json::Value;"),
            ["1: decode names serde_json: it lives in output only"]
        );
    }

    #[test]
    fn the_model_is_std_only() {
        assert_eq!(
            findings("model/event.rs", "use libc::c_int;\nuse crate::kernel::Ring;"),
            ["1: the model names libc: it is made of std only", "2: the model names crate::kernel"]
        );
    }
}
