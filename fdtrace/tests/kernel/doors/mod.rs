//! Every way in which a process can be refused a descriptor. Each workload counts its refusals by
//! call and errno, and fdtrace's totals must be equal to that, to the last one.

mod calls;
#[cfg(target_arch = "x86_64")]
mod compat;
mod every_call;
mod own_limits;
mod passed;
mod seen;
mod system;
mod table;
mod uring;
mod uring_accepts;
mod uring_others;

use nix::libc;

use crate::{Test, support::Fdtrace, workload::Spec};

pub(crate) const TESTS: &[&[Test]] = &[
    every_call::TESTS,
    #[cfg(target_arch = "x86_64")]
    compat::TESTS,
    own_limits::TESTS,
    passed::TESTS,
    uring_accepts::TESTS,
    uring_others::TESTS,
    system::TESTS,
];

/// Runs a workload of these tests to its end. Each keeps what it holds until then: fdtrace looks at
/// its table a moment after the failure.
pub(crate) fn run(spec: &str) {
    let spec = Spec(spec);
    // What the shell or a test runner left open above the limit would be counted as in use too.
    // SAFETY: nothing in this process has opened anything yet.
    unsafe { libc::close_range(3, u32::MAX, 0) };
    match spec.text("doors").unwrap() {
        "calls" => calls::run(&spec),
        #[cfg(target_arch = "x86_64")]
        "compat" => compat::run(&spec),
        "own" => own_limits::run(&spec),
        "passed" => passed::run(&spec),
        "uring" => uring::run(&spec),
        "file_max" => system::run_file_max(&spec),
        "nr_open" => system::run_nr_open(&spec),
        other => panic!("doors={other}"),
    }
}

/// Whether this is a virtual machine that nobody else uses, as `cargo xtask vm` makes it.
pub(crate) fn is_own_system() -> bool {
    std::env::var_os("FDTRACE_VM").is_some_and(|value| value == "1")
}

/// fdtrace in the form that `FDTRACE_TEST_FORM` asks for.
#[track_caller]
fn fdtrace(args: &[&str]) -> Fdtrace {
    let form = std::env::var("FDTRACE_TEST_FORM").unwrap_or_default();
    match form.as_str() {
        "" | "auto" => Fdtrace::start(args),
        form => Fdtrace::start(&[args, &["--form", form]].concat()),
    }
}
