//! Which form of each probe is in force. Where nothing forbids a form, the tests would pass with
//! another one too.

use std::{collections::BTreeMap, fs};

use serde_json::json;

use crate::{Test, doors::is_own_system, support::Fdtrace};

pub(crate) const TESTS: &[Test] = &[("the_form_asked_for_is_in_force", in_force)];

/// Probes of calls, and those that each form leaves to another one.
const PROBES: [&str; 8] =
    ["accept", "socket", "socketpair", "listen", "io_uring", "fds", "syn", "ack"];

fn in_force() {
    let asked = std::env::var("FDTRACE_TEST_FORM").unwrap_or_default();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let Some(expected) = expected(&asked, release.trim()) else {
        println!("  --form {asked:?} on {release}: what is used is this host's affair");
        return;
    };
    let run = Fdtrace::start(&["--fds"]).stop();
    let started = run.of_kind("started", &json!({}));
    let probes = started[0]["probes"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let forms = probes.map(|probe| (text(&probe["probe"]), text(&probe["form"])));
    assert_eq!(forms.collect::<BTreeMap<_, _>>(), expected, "{:#}", started[0]["probes"]);
}

/// What must be in force; `None` where nobody can know it.
fn expected(asked: &str, release: &str) -> Option<BTreeMap<String, String>> {
    let form = |probe: &str| match (asked, probe) {
        ("kprobe", _) => Some("kprobe"),
        ("tracepoint", "io_uring") => Some("tp_btf"),
        ("tracepoint", "syn" | "ack") => Some("cgroup_skb"),
        ("tracepoint", _) => Some("tracepoint"),
        ("fexit", "syn" | "ack") => Some("fentry"),
        ("fexit", _) => Some("fexit"),
        // In a machine of the tests' own nothing is forbidden.
        ("" | "auto", _) if !is_own_system() => None,
        ("" | "auto", probe) => automatic(probe, release),
        _ => None,
    };
    PROBES.iter().map(|probe| Some(((*probe).to_owned(), form(probe)?.to_owned()))).collect()
}

/// Of the kernels that every test must pass on: seven arguments are too many for a trampoline of 6.1
/// on x86-64, and on arm64 it has none that programs could use.
fn automatic(probe: &str, release: &str) -> Option<&'static str> {
    let is_old = release.starts_with("6.1.");
    let has_no_trampolines = is_old && cfg!(target_arch = "aarch64");
    match probe {
        _ if !is_old && !release.starts_with("6.12.") => None,
        "fds" | "syn" | "ack" if has_no_trampolines => Some("kprobe"),
        "io_uring" if has_no_trampolines => Some("tp_btf"),
        _ if has_no_trampolines => Some("tracepoint"),
        "ack" if is_old => Some("kprobe"),
        "syn" | "ack" => Some("fentry"),
        _ => Some("fexit"),
    }
}
