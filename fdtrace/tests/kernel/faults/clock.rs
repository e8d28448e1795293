//! Somebody sets the wall clock. These tests do, so they run in a virtual machine only.

use std::{
    thread::sleep,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime, clock_settime},
};
use serde_json::{Value, json};

use crate::{
    Test,
    doors::is_own_system,
    support::{Daemon, Fdtrace, number},
    warnings::Server,
    workload::Workload,
};

pub(super) const TESTS: &[Test] = &[
    ("the_clock_is_set_in_a_storm", set_in_a_storm),
    ("the_clock_is_set_between_a_state_and_its_end", set_between),
];

const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// No test here takes longer, on an emulated machine either.
const TEST: f64 = 120.0;

/// The wall clock, put back when this is dropped.
struct Clock {
    /// How far it is ahead of the time since boot.
    ahead: Duration,
}

impl Clock {
    fn right() -> Self {
        let boot = now(ClockId::CLOCK_BOOTTIME);
        Self { ahead: now(ClockId::CLOCK_REALTIME).checked_sub(boot).unwrap() }
    }

    fn set(ahead: Duration) {
        let time = TimeSpec::from_duration(now(ClockId::CLOCK_BOOTTIME) + ahead);
        clock_settime(ClockId::CLOCK_REALTIME, time).unwrap();
    }

    fn back_by_a_day(&self) {
        Self::set(self.ahead.checked_sub(DAY).unwrap());
    }

    fn forward_by_a_year(&self) {
        Self::set(self.ahead + YEAR);
    }

    /// Fails unless the report was dated by one of the clocks that there were.
    #[track_caller]
    fn assert_dated(&self, report: &Value) {
        let time = seconds(&report["time"]).unwrap();
        let right = (now(ClockId::CLOCK_BOOTTIME) + self.ahead).as_secs_f64();
        let off = [0.0, -DAY.as_secs_f64(), YEAR.as_secs_f64()].map(|by| time - right - by);
        assert!(off.iter().any(|off| (-TEST..=1.0).contains(off)), "{off:?}: {report}");
        if let (Some(first), Some(last)) = (seconds(&report["first"]), seconds(&report["last"])) {
            assert!(first <= last && last - first < TEST, "{report}");
            // Dated by the same clock as the line itself.
            assert!((-0.1..TEST).contains(&(time - last)), "{report}");
            let length = report["duration_s"].as_f64().unwrap();
            assert!((length - (last - first)).abs() < 0.01, "{report}");
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        Self::set(self.ahead);
    }
}

fn now(clock: ClockId) -> Duration {
    clock_gettime(clock).unwrap().into()
}

fn seconds(time: &Value) -> Option<f64> {
    let time: Timestamp = time.as_str()?.parse().unwrap();
    let since = SystemTime::from(time).duration_since(SystemTime::UNIX_EPOCH);
    Some(since.unwrap().as_secs_f64())
}

fn set_in_a_storm() {
    if !is_own_system() {
        println!("  sets the clock: runs in `cargo xtask vm` only");
        return;
    }
    let clock = Clock::right();
    let fdtrace = Fdtrace::start(&["--interval", "500ms"]);
    let daemon = Daemon::start(
        "[output]\nstdout = \"none\"\njournal = \"never\"\n[metrics]\nlisten = \"127.0.0.1:PORT\"\n",
    );
    let mut workload = Workload::start("retries=busy seconds=9");
    let process = json!({ "process": { "pid": workload.pid() } });
    workload.go();
    sleep(Duration::from_secs(2));
    clock.back_by_a_day();
    sleep(Duration::from_secs(2));
    clock.forward_by_a_year();
    sleep(Duration::from_secs(2));
    daemon.wait_for_notice("WATCHDOG=1");
    assert_eq!(daemon.get("/healthz"), (200, "ok\n".to_owned()));
    let failures = number(&workload.done(), "/failures");
    let metric = daemon.metric("fdtrace_failures_total", &["failure=\"EMFILE\""]);
    assert_eq!(metric.to_string(), failures.to_string());
    let ended = daemon.stop();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", ended.stderr);
    let run = fdtrace.stop();
    println!("  failed {failures} times, counted {}", run.count(&process));
    assert_eq!(run.count(&process), failures);
    run.assert_lost_nothing();
    assert_eq!(run.of_kind("episode_opened", &process).len(), 1);
    let updates = run.of_kind("episode_updated", &process);
    // One each half second, by a clock that nobody sets.
    assert!((8..=30).contains(&updates.len()), "{}", updates.len());
    run.reports.iter().for_each(|(_, report)| clock.assert_dated(report));
    let times = |wanted: f64| {
        let right = (now(ClockId::CLOCK_BOOTTIME) + clock.ahead).as_secs_f64();
        let off = updates.iter().map(|update| seconds(&update["time"]).unwrap() - right);
        off.filter(|off| (off - wanted).abs() < TEST).count()
    };
    assert!(times(-DAY.as_secs_f64()) > 0 && times(YEAR.as_secs_f64()) > 0, "{updates:#?}");
}

fn set_between() {
    if !is_own_system() {
        println!("  sets the clock: runs in `cargo xtask vm` only");
        return;
    }
    let clock = Clock::right();
    let mut fdtrace = Fdtrace::start(&[]);
    let mut workload = Workload::start("failures=67 then=recover");
    let process = json!({ "process": { "pid": workload.pid() } });
    let mut server = Server::start(128);
    assert_eq!(workload.fail(), 67);
    fdtrace.wait_for_report("episode_opened", &process);
    clock.back_by_a_day();
    server.hold(220);
    fdtrace.reported("warning_raised", &server.process());
    clock.forward_by_a_year();
    workload.go();
    workload.line("recovered");
    server.hold(20);
    let closed = fdtrace.reported("episode_closed", &process);
    assert_eq!(closed["outcome"], "recovered");
    fdtrace.reported("warning_cleared", &server.process());
    let run = fdtrace.stop();
    assert_eq!(run.count(&process), 67);
    run.assert_lost_nothing();
    run.reports.iter().for_each(|(_, report)| clock.assert_dated(report));
}
