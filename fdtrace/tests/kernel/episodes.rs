//! One line per change of state, not per failed call.

use serde_json::json;

use crate::{
    Test,
    support::{Fdtrace, number},
    workload::Workload,
};

pub(crate) const TESTS: &[Test] = &[
    ("opened_updated_and_recovered", opened_updated_and_recovered),
    ("a_process_at_its_limit_has_not_recovered", a_process_at_its_limit_has_not_recovered),
    ("what_lasts_at_the_end_is_closed_as_unfinished", unfinished),
];

fn opened_updated_and_recovered() {
    let mut fdtrace = Fdtrace::start(&["--interval", "1s"]);
    let mut workload = Workload::start("failures=67 then=recover");
    let process = json!({ "process": { "pid": workload.pid() } });
    assert_eq!(workload.fail(), 67);
    let (_, opened) = fdtrace.wait_for_report("episode_opened", &process);
    // The first line comes at the first failure; the line after it has the rest.
    if number(&opened, "/count") < 67 {
        let (_, updated) = fdtrace.wait_for_report("episode_updated", &process);
        assert_eq!(number(&updated, "/count"), 67);
    }
    workload.go();
    workload.line("recovered");
    let (_, closed) = fdtrace.wait_for_report("episode_closed", &process);
    assert_eq!(closed["outcome"], "recovered");
    assert_eq!(number(&closed, "/count"), 67);
    let run = fdtrace.stop();
    assert_eq!(run.of_kind("episode_opened", &process).len(), 1);
    assert_eq!(run.of_kind("episode_closed", &process).len(), 1);
}

/// Nobody calls accept while no client comes: that is not recovery.
fn a_process_at_its_limit_has_not_recovered() {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut workload = Workload::start("failures=71 then=fail-again");
    let process = json!({ "process": { "pid": workload.pid() } });
    assert_eq!(workload.fail(), 71);
    fdtrace.wait_for_report("episode_opened", &process);
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(workload.fail(), 71);
    let run = fdtrace.stop();
    assert_eq!(run.of_kind("episode_opened", &process).len(), 1);
    let closed = run.of_kind("episode_closed", &process);
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["outcome"], "unfinished");
    assert_eq!(number(closed[0], "/count"), 142);
}

fn unfinished() {
    let mut fdtrace = Fdtrace::start(&[]);
    let mut workload = Workload::start("failures=73");
    assert_eq!(workload.fail(), 73);
    let process = json!({ "process": { "pid": workload.pid() } });
    fdtrace.wait_for_report("episode_opened", &process);
    let run = fdtrace.stop();
    let closed = run.of_kind("episode_closed", &process);
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["outcome"], "unfinished");
}
