//! `fdtrace doctor` on this kernel: what it says is held against what fdtrace does.

use std::{
    collections::BTreeMap,
    fs, io,
    process::Output,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::{Value, json};

use crate::{
    Test,
    host::{CAP_SYS_ADMIN, become_nobody, drop_capability, forbid_bpf, run_to_end},
    support::{Fdtrace, buffer_arguments, number},
};

pub(crate) const TESTS: &[Test] = &[
    ("doctor_says_that_it_works", works),
    ("doctor_sees_what_fds_sees", with_fds),
    ("doctor_and_trace_use_the_same_forms", same_forms),
    ("doctor_examines_the_form_asked_for", form_asked_for),
    ("doctor_examines_the_buffer_asked_for", buffer_asked_for),
    ("doctor_leaves_the_host_as_it_was", leaves_nothing),
    ("doctor_of_an_ordinary_user_is_4", not_root),
    ("doctor_without_btf_is_3", no_btf),
    ("doctor_where_bpf_is_refused_is_3", refused),
    ("doctor_without_admin_tests_in_the_hosts_namespace", without_admin),
    ("doctor_text_starts_with_the_answer", text),
];

/// The object, which is as the schema says.
#[track_caller]
fn parse(output: &Output, code: i32) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(code), "{found:#}\n{stderr}");
    let schema = include_str!("../../../docs/doctor.schema.json");
    let schema = jsonschema::draft202012::new(&serde_json::from_str(schema).unwrap()).unwrap();
    let errors: Vec<_> = schema.iter_errors(&found).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{found:#}\n{errors:#?}");
    // A form that is refused leaves nothing behind that hides why the next one is.
    assert!(!found.to_string().contains("already loaded"), "{found:#}");
    found
}

#[track_caller]
fn doctor(args: &[&str]) -> Value {
    let buffer = buffer_arguments();
    let buffer: Vec<_> = buffer.iter().map(String::as_str).collect();
    parse(&run_to_end(&[&["doctor", "--json"], &buffer[..], args].concat(), || Ok(())), 0)
}

fn list<'a>(found: &'a Value, pointer: &str) -> &'a [Value] {
    found.pointer(pointer).unwrap().as_array().unwrap()
}

fn fact<'a>(found: &'a Value, name: &str) -> &'a Value {
    list(found, "/facts").iter().find(|fact| fact["name"] == name).unwrap()
}

fn forms(probes: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let probes = probes.as_array().unwrap().iter();
    probes.map(|probe| (text(&probe["probe"]), text(&probe["form"]))).collect()
}

/// Every count of the self-test is exact, and nothing that can be seen is left out.
#[track_caller]
fn assert_exact(found: &Value) {
    assert_eq!(found["self_test"]["not_run"], Value::Null, "{found:#}");
    let forms = forms(&found["probes"]);
    let has_fds = list(found, "/probes")
        .iter()
        .any(|probe| probe["probe"] == "fds" && !list(probe, "/points").is_empty());
    for check in list(found, "/self_test/checks") {
        let is_looked_for = match check["door"].as_str().unwrap() {
            "openat" => has_fds,
            "syn" => !["none", "sock_diag"].contains(&forms["syn"].as_str()),
            "accept" | "accept4" => true,
            door => forms[door] != "none",
        };
        assert!(number(check, "/made") > 0, "{check}");
        let seen = if is_looked_for { check["made"].clone() } else { Value::Null };
        assert_eq!(check["seen"], seen, "{found:#}");
    }
}

fn works() {
    let start = Instant::now();
    let found = doctor(&[]);
    // An emulated machine is given more time.
    let limit = if std::env::var_os("FDTRACE_BIN").is_some() { 30 } else { 3 };
    assert!(start.elapsed() < Duration::from_secs(limit), "{:?}", start.elapsed());
    assert_eq!(found["verdict"], "works");
    assert_eq!(found["self_test"]["own_namespace"], true);
    assert_exact(&found);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(found["kernel"], kernel.trim());
    assert_eq!(fact(&found, "capabilities")["state"], "good");
    let value = fact(&found, "capabilities")["value"].as_str().unwrap();
    assert!(value.contains("CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, "), "{value}");

    // Both accepts were measured, and what was measured ran.
    assert_eq!(found["cost"]["not_measured"], Value::Null);
    let programs = list(&found, "/cost/programs");
    let of_accept = programs.iter().filter(|program| {
        let name = program["program"].as_str().unwrap();
        name.starts_with("accept") && !name.ends_with("_kp")
    });
    let runs: u64 = of_accept.map(|program| number(program, "/runs")).sum();
    assert!(runs >= 202, "{programs:#?}");
    for program in programs.iter().filter(|program| number(program, "/runs") > 0) {
        assert!(number(program, "/run_time_ns") > 0, "{program}");
    }
}

fn with_fds() {
    let found = doctor(&["--fds"]);
    assert_exact(&found);
    assert!(!list(&found, "/unseen").iter().any(|unseen| unseen["remedy"] == "give --fds"));
    let found = doctor(&[]);
    assert!(list(&found, "/unseen").iter().any(|unseen| unseen["remedy"] == "give --fds"));
}

/// What doctor found by trying each is what a trace chooses by itself.
fn same_forms() {
    if std::env::var("FDTRACE_TEST_FORM").is_ok_and(|form| form != "auto") {
        return;
    }
    let found = doctor(&["--fds"]);
    let run = Fdtrace::start(&["--fds"]).stop();
    let traced = forms(&run.of_kind("started", &json!({}))[0]["probes"]);
    assert_eq!(forms(&found["probes"]), traced);
    for probe in list(&found, "/probes") {
        let tried = list(probe, "/forms").iter();
        let best = tried.clone().find(|form| form["outcome"] == "works");
        match best {
            Some(best) => assert_eq!(best["form"], probe["form"], "{probe:#}"),
            None => assert!(["none", "sock_diag"].contains(&probe["form"].as_str().unwrap())),
        }
    }
}

/// Every form of every probe is tested too, not only the best: the second of all that have one at
/// once, and so on.
fn form_asked_for() {
    let found = doctor(&["--fds"]);
    let asked = |probe: &Value, form: &Value| {
        // As --form calls them: what belongs to fexit, and what belongs to tracepoint.
        let choice = match form["form"].as_str().unwrap() {
            "fentry" => "fexit",
            "tp_btf" | "cgroup_skb" => "tracepoint",
            other => other,
        };
        format!("--form={}={choice}", probe["probe"].as_str().unwrap())
    };
    for place in 0..3 {
        let mut args = vec!["--fds".to_owned()];
        let mut expected = forms(&found["probes"]);
        for probe in list(&found, "/probes") {
            match list(probe, "/forms").get(place) {
                Some(form) if form["outcome"] == "works" => {
                    let text = |value: &Value| value.as_str().unwrap().to_owned();
                    expected.insert(text(&probe["probe"]), text(&form["form"]));
                    args.push(asked(probe, form));
                }
                Some(form) => {
                    let asked = asked(probe, form);
                    let args = ["doctor", "--json", "--fds", &asked];
                    let found = parse(&run_to_end(&args, || Ok(())), 3);
                    assert_eq!(found["verdict"], "unsupported");
                    assert!(found["why"].as_str().unwrap().contains("Without --form"), "{asked}");
                }
                None => {}
            }
        }
        let found = doctor(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(forms(&found["probes"]), expected, "{args:?}");
        assert_exact(&found);
    }
}

/// As on a kernel without ring buffers.
fn buffer_asked_for() {
    let found = doctor(&["--buffer", "perf"]);
    assert_eq!(found["verdict"], "works");
    assert_exact(&found);
    assert_eq!(fact(&found, "buffer")["value"], "a perf buffer for each CPU");
    let found = doctor(&["--buffer", "ring"]);
    assert_eq!(fact(&found, "buffer")["state"], "good");
}

fn leaves_nothing() {
    let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
    let before = mounts();
    doctor(&[]);
    assert_eq!(mounts(), before);
}

fn not_root() {
    let found = parse(&run_to_end(&["doctor", "--json"], become_nobody), 4);
    assert_eq!(found["verdict"], "not_permitted");
    assert_eq!(fact(&found, "capabilities")["state"], "bad");
    assert_eq!(fact(&found, "btf")["state"], "good");
    for probe in list(&found, "/probes") {
        for form in list(probe, "/forms") {
            assert!(["not_tried", "lacks"].contains(&form["outcome"].as_str().unwrap()), "{form}");
        }
    }
}

fn no_btf() {
    let args = ["doctor", "--json", "--btf", "/nonexistent"];
    let found = parse(&run_to_end(&args, || Ok(())), 3);
    assert_eq!(found["verdict"], "unsupported");
    assert_eq!(fact(&found, "btf")["state"], "bad");
    assert!(found["why"].as_str().unwrap().contains("CONFIG_DEBUG_INFO_BTF"), "{found:#}");
}

fn refused() {
    let found = parse(&run_to_end(&["doctor", "--json"], forbid_bpf), 3);
    assert_eq!(fact(&found, "seccomp")["state"], "less");
    assert!(found["why"].as_str().unwrap().contains("seccomp"), "{found:#}");
}

/// As in a container that was given CAP_BPF and CAP_PERFMON.
fn without_admin() {
    let prepare = || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let kind = Some("tracefs");
        mount(Some("none"), "/sys/kernel/tracing", kind, MsFlags::empty(), none)?;
        drop_capability(CAP_SYS_ADMIN)
    };
    let found = parse(&run_to_end(&["doctor", "--json"], prepare), 0);
    let value = fact(&found, "capabilities")["value"].as_str().unwrap();
    assert!(value.starts_with("held CAP_BPF, CAP_PERFMON, "), "{value}");
    assert!(value.ends_with("; missing CAP_SYS_ADMIN"), "{value}");
    assert_eq!(found["self_test"]["own_namespace"], false);
    assert_exact(&found);
    let why = found["cost"]["not_measured"].as_str().unwrap();
    assert!(why.contains("EPERM"), "{why}");
}

fn text() {
    let output = run_to_end(&["doctor"], || Ok(()));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("fdtrace works here: failed accepts by "), "{text}");
    assert!(text.contains("\nself-test: a child failed on purpose, in a network"), "{text}");
    assert!(!text.contains("WRONG"), "{text}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let output = run_to_end(&["doctor"], become_nobody);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("fdtrace cannot work for this user: "), "{text}");
}
