//! Golden text, and JSON against the schema and the reference.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::*;
use crate::{
    model::{
        BlindSpot, Check, DoctorReport, DoctorVerdict, Fact, FactState, FormExamined, FormOutcome,
        ProbeExamined, ProgramCost, SelfTest,
    },
    output::terminal::Colour,
};

const SCHEMA: &str = include_str!("../../../../docs/doctor.schema.json");
const DOCS: &str = include_str!("../../../../docs/doctor.md");

fn good(name: &'static str, value: &str) -> Fact {
    let state = FactState::Good;
    Fact { name, state, value: value.to_owned(), consequence: None, remedy: None }
}

fn less(name: &'static str, value: &str, consequence: &str, remedy: &str) -> Fact {
    let (consequence, remedy) = (Some(consequence.to_owned()), Some(remedy.to_owned()));
    Fact { state: FactState::Less, consequence, remedy, ..good(name, value) }
}

const FORBIDDEN: &str = "loading accept_fx: not permitted (EPERM)";
const NO_KPROBES: &str = "the kernel has no kprobes (CONFIG_KPROBE_EVENTS)";

fn form(form: &'static str, outcome: FormOutcome) -> FormExamined {
    FormExamined { form, outcome }
}

fn forbidden(name: &'static str) -> FormExamined {
    form(name, FormOutcome::Forbidden(FORBIDDEN.to_owned()))
}

fn no_kprobe() -> FormExamined {
    form("kprobe", FormOutcome::Lacks(NO_KPROBES.to_owned()))
}

fn probe(probe: &'static str, used: &'static str, forms: Vec<FormExamined>) -> ProbeExamined {
    let points: &[&str] = match probe {
        "accept" => &["syscalls:sys_exit_accept", "syscalls:sys_exit_accept4"],
        _ => &["cgroup_skb/ingress"],
    };
    let points = points.iter().map(|point| (*point).to_owned()).collect();
    ProbeExamined { probe, used, on_request: false, points, forms }
}

fn check(door: &'static str, failure: &'static str, made: u64, seen: Option<u64>) -> Check {
    Check { door, failure, made, seen }
}

fn cost(program: &str, runs: u64, nanos: u64, instructions: Option<u64>) -> ProgramCost {
    let (program, time) = (program.to_owned(), Duration::from_nanos(nanos));
    ProgramCost { program, runs, time, instructions, is_jited: Some(true) }
}

/// As on a hardened host.
fn working() -> DoctorReport {
    let tracepoints = || {
        let works = form("tracepoint", FormOutcome::Works);
        vec![forbidden("fexit"), works, no_kprobe()]
    };
    let packets = || vec![forbidden("fentry"), no_kprobe(), form("cgroup_skb", FormOutcome::Works)];
    let fds = vec![forbidden("fexit"), no_kprobe(), form("tracepoint", FormOutcome::Works)];
    DoctorReport {
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_722_290_200),
        version: "0.1.0",
        kernel: "6.18.44".to_owned(),
        machine: "x86_64",
        verdict: DoctorVerdict::Works,
        facts: vec![
            good(
                "capabilities",
                "all that fdtrace uses: CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_SYS_PTRACE, \
                 CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN",
            ),
            good("btf", "/sys/kernel/btf/vmlinux"),
            less(
                "kprobes",
                "the kernel has none",
                "there is no form kprobe; others may do",
                "where none does, use a kernel with CONFIG_KPROBE_EVENTS=y",
            ),
            Fact { state: FactState::Unknown, ..good("lockdown", "securityfs is not mounted") },
        ],
        probes: vec![
            probe("accept", "tracepoint", tracepoints()),
            ProbeExamined {
                on_request: true,
                points: Vec::new(),
                ..probe("fds", "tracepoint", fds)
            },
            probe("syn", "cgroup_skb", packets()),
            probe("ack", "cgroup_skb", packets()),
        ],
        unseen: vec![
            BlindSpot {
                what: "calls of 32-bit programs",
                why: "tracepoints of system calls are not for them".to_owned(),
                remedy: Some("the forms fexit and kprobe see them".to_owned()),
            },
            BlindSpot {
                what: "connects to AF_UNIX sockets that are refused",
                why: "the client's call fails, and the listener is not told".to_owned(),
                remedy: None,
            },
        ],
        self_test: Ok(SelfTest {
            own_namespace: Ok(()),
            took: Duration::from_micros(7_900),
            checks: vec![
                check("accept", "EMFILE", 101, Some(101)),
                check("openat", "EMFILE", 53, None),
                check("syn", "accept_queue_full", 7, Some(7)),
            ],
        }),
        costs: Ok(vec![
            cost("accept_exit_tp", 101, 12_221, Some(10_333)),
            cost("uring_done_btp", 0, 0, None),
        ]),
    }
}

/// Compares with a file; `UPDATE_EXPECTED=1` writes it. Read it as an operator would.
#[track_caller]
fn assert_golden(text: &str, file: &str, expected: &str) {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/output/doctor/");
        std::fs::write(format!("{dir}{file}"), text).unwrap();
    } else {
        assert_eq!(text, expected, "UPDATE_EXPECTED=1 cargo test writes {file}");
    }
}

/// As for an ordinary user.
fn forbidden_report() -> DoctorReport {
    let not = |name| form(name, FormOutcome::NotTried("not permitted".to_owned()));
    let forms = vec![not("fexit"), not("tracepoint"), no_kprobe()];
    let why = || "nothing is attached".to_owned();
    DoctorReport {
        verdict: DoctorVerdict::NotPermitted(
            "loading programs needs root. Run: sudo fdtrace".to_owned(),
        ),
        facts: vec![Fact {
            state: FactState::Bad,
            ..less("capabilities", "missing CAP_BPF", "not possible: loading programs", "be root")
        }],
        probes: vec![ProbeExamined { points: Vec::new(), ..probe("accept", "none", forms) }],
        unseen: Vec::new(),
        self_test: Err(why()),
        costs: Err(why()),
        ..working()
    }
}

#[test]
fn a_host_where_it_works() {
    let text = doctor_text(&working(), Colour::Never);
    assert_golden(&text, "working.txt", include_str!("working.txt"));
    assert!(text.lines().skip(1).all(|line| line.chars().count() <= wrap::WIDTH));
}

#[test]
fn a_user_who_may_not() {
    let text = doctor_text(&forbidden_report(), Colour::Never);
    assert_golden(&text, "not_permitted.txt", include_str!("not_permitted.txt"));
}

fn first_line(change: impl FnOnce(&mut DoctorReport)) -> String {
    let mut report = working();
    change(&mut report);
    doctor_text(&report, Colour::Never).lines().next().unwrap().to_owned()
}

#[test]
fn the_first_line_is_the_answer() {
    let forms = |syn, ack| {
        first_line(|report| {
            report.probes[2].used = syn;
            report.probes[3].used = ack;
        })
    };
    let works = "fdtrace works here: failed accepts by tracepoint, ";
    assert_eq!(forms("fentry", "fentry"), format!("{works}refused clients by fentry"));
    assert!(forms("fentry", "kprobe").starts_with(&format!("{works}refused clients by fentry")));
    assert_eq!(forms("none", "none"), format!("{works}refused clients not seen"));
    assert!(forms("sock_diag", "sock_diag").contains("refused clients polled"));
    let verdict = |verdict| first_line(|report| report.verdict = verdict);
    assert_eq!(
        verdict(DoctorVerdict::Unsupported("no BTF".to_owned())),
        "fdtrace cannot work here: no BTF"
    );
    assert!(
        verdict(DoctorVerdict::Blind("4 of 5 accept EMFILE".to_owned())).contains("4 of 5 accept")
    );
    assert_eq!(verdict(DoctorVerdict::Failed("x".to_owned())), "fdtrace cannot start here: x");
    let untested = verdict(DoctorVerdict::Untested("no child".to_owned()));
    assert!(untested.starts_with("fdtrace is attached here, but was not tested (no child): "));
}

#[test]
fn a_wrong_count_is_shown() {
    let mut report = working();
    let ran = report.self_test.as_mut().unwrap();
    ran.checks[0].seen = Some(100);
    ran.own_namespace = Err("Operation not permitted (os error 1)".to_owned());
    let text = doctor_text(&report, Colour::Never);
    assert!(text.contains("101   100  WRONG"), "{text}");
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("fdtrace's network namespace (Operation not permitted"), "{text}");
}

#[test]
fn colour_is_around_words() {
    let plain = doctor_text(&working(), Colour::Never);
    let coloured = doctor_text(&working(), Colour::Always);
    assert!(coloured.starts_with("\x1b[32mfdtrace works here"), "{coloured}");
    assert!(coloured.contains("  \x1b[33mless\x1b[0m     kprobes"), "{coloured}");
    let stripped = ["32", "33", "31", "0"]
        .iter()
        .fold(coloured, |text, code| text.replace(&format!("\x1b[{code}m"), ""));
    assert_eq!(stripped, plain);
}

/// A mount point, a module's name or an error may hold anything.
#[test]
fn what_the_host_says_cannot_act_on_a_terminal() {
    let evil = || "a\x1b[31mb\nc\u{202e}d".to_owned();
    let mut report = working();
    report.kernel = evil();
    report.verdict = DoctorVerdict::Unsupported(evil());
    report.facts[0].value = evil();
    report.facts[1].consequence = Some(evil());
    report.facts[1].remedy = Some(evil());
    report.unseen[0].why = evil();
    report.probes[0].forms[0].outcome = FormOutcome::Failed(evil());
    report.probes[0].points = vec![evil()];
    report.self_test = Err(evil());
    report.costs = Err(format!("{}!", evil()));
    let text = doctor_text(&report, Colour::Never);
    assert!(!text.contains(['\x1b', '\u{202e}']), "{text:?}");
    assert_eq!(text.matches(r"a\x1b[31mb\x0ac\u{202e}d").count(), 10, "{text}");
    let json = String::from_utf8(doctor_json(&report).unwrap()).unwrap();
    assert_eq!(json.lines().count(), 1);
    assert!(!json.contains(['\x1b', '\u{202e}']), "{json:?}");
}

fn value(report: &DoctorReport) -> Value {
    serde_json::from_slice(&doctor_json(report).unwrap()).unwrap()
}

#[test]
fn json_is_as_the_schema_says() {
    let schema = serde_json::from_str(SCHEMA).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    let mut wrong = working();
    wrong.verdict = DoctorVerdict::Blind("x".to_owned());
    wrong.probes[0].forms[0].outcome = FormOutcome::Failed("x".to_owned());
    wrong.self_test.as_mut().unwrap().own_namespace = Err("x".to_owned());
    let mut untested = working();
    untested.verdict = DoctorVerdict::Untested("x".to_owned());
    untested.self_test = Err("x".to_owned());
    for report in [working(), forbidden_report(), wrong, untested] {
        let value = value(&report);
        let errors: Vec<_> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{value:#}\n{errors:#?}");
    }
}

#[test]
fn json_has_what_text_has() {
    let found = value(&working());
    assert_eq!(found["time"], "2024-07-29T21:56:40.000Z");
    assert_eq!((&found["verdict"], &found["why"]), (&json!("works"), &Value::Null));
    assert_eq!(
        found["facts"][2],
        json!({
            "name": "kprobes",
            "state": "less",
            "value": "the kernel has none",
            "consequence": "there is no form kprobe; others may do",
            "remedy": "where none does, use a kernel with CONFIG_KPROBE_EVENTS=y",
        })
    );
    assert_eq!(found["probes"][0]["forms"][0]["outcome"], "forbidden");
    assert_eq!(found["probes"][0]["forms"][0]["why"], FORBIDDEN);
    assert_eq!(found["probes"][1]["on_request"], true);
    assert_eq!(
        found["self_test"],
        json!({
            "not_run": null,
            "own_namespace": true,
            "duration_s": 0.007,
            "checks": [
                { "door": "accept", "failure": "EMFILE", "made": 101, "seen": 101 },
                { "door": "openat", "failure": "EMFILE", "made": 53, "seen": null },
                { "door": "syn", "failure": "accept_queue_full", "made": 7, "seen": 7 },
            ],
        })
    );
    assert_eq!(found["cost"]["programs"][0]["run_time_ns"], 12_221);
    let found = value(&forbidden_report());
    assert_eq!(found["verdict"], "not_permitted");
    assert_eq!(found["self_test"]["not_run"], "nothing is attached");
}

/// docs/doctor.md names every field and value, and its example is what is written.
fn names(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key == "enum" {
                    let words = value.as_array().unwrap().iter();
                    found.extend(words.map(|word| word.as_str().unwrap().to_owned()));
                } else if key == "required" {
                    let words = value.as_array().unwrap().iter();
                    found.extend(words.map(|word| word.as_str().unwrap().to_owned()));
                }
                names(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test]
fn documented() {
    let text = doctor_text(&working(), Colour::Never);
    assert!(DOCS.contains(&text), "not in docs/doctor.md:\n{text}");
    let mut found = Vec::new();
    names(&serde_json::from_str(SCHEMA).unwrap(), &mut found);
    for name in found {
        assert!(DOCS.contains(&format!("`{name}`")), "`{name}` is not in docs/doctor.md");
    }
}
