//! A kernel that does not show its own types, and a file that has them.

use std::fs;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::json;

use crate::{Test, doors::is_own_system, support::Fdtrace, workload::Workload};

pub(crate) const TESTS: &[Test] = &[("types_from_a_file", types_from_a_file)];

const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Programs cannot be attached by type then, and kprobes and tracepoints need no types.
fn types_from_a_file() {
    let copy = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    fs::copy(KERNEL_BTF, copy.path()).unwrap();
    let path = copy.path().to_str().unwrap();
    // The last word about a form counts: those that take the kernel's own types cannot be asked for.
    let forms: &[&[&str]] = &[
        &["--form", "auto"],
        &["--form", "auto", "--form", "accept=tracepoint", "--form", "fds=tracepoint"],
        &["--form", "kprobe"],
    ];
    let has_kprobes = fs::exists("/sys/bus/event_source/devices/kprobe").unwrap();
    assert!(has_kprobes || !is_own_system());
    for form in forms.iter().filter(|form| has_kprobes || form[1] != "kprobe") {
        let args = [&["--fds", "--btf", path], *form].concat();
        let fdtrace = Fdtrace::start_changed(&args, || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            let place = "/sys/kernel/btf";
            Ok(mount(Some("none"), place, Some("tmpfs"), MsFlags::empty(), none)?)
        });
        let mut workload = Workload::start("failures=41");
        let mut opens = Workload::start("doors=calls call=openat failures=43");
        assert_eq!(workload.fail(), 41);
        opens.go();
        assert_eq!(opens.done()["answers"]["openat"], json!({ "EMFILE": 43 }));
        let run = fdtrace.stop();
        run.assert_lost_nothing();
        let of = |workload: &Workload| json!({ "process": { "pid": workload.pid() } });
        let accepts = json!({ "process": of(&workload)["process"], "door": "accept4" });
        assert_eq!(run.count(&accepts), 41, "{form:?} {:#}", run.summary());
        assert_eq!(run.count(&of(&opens)), 43, "{form:?} {:#}", run.summary());
        for probe in run.of_kind("started", &json!({}))[0]["probes"].as_array().unwrap() {
            let form = probe["form"].as_str().unwrap();
            assert!(!["fexit", "fentry", "tp_btf"].contains(&form), "{probe:#}");
            for refused in probe["refused"].as_array().into_iter().flatten() {
                let typed = ["fexit", "fentry", "tp_btf"];
                let says_it = refused["why"].as_str().unwrap().contains(KERNEL_BTF);
                assert!(says_it || !typed.contains(&refused["form"].as_str().unwrap()), "{probe}");
            }
        }
    }
}
