//! What PAM gives to a login. No more than a login is needed for it: runuser opens a session as su
//! does, and asks for no password.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{
    Test,
    support::{Fdtrace, carry_out},
    unit::{Clients, PORT, PROGRAM, ends, exhaust, install, later, settle, wait_until_it_listens},
};

pub(crate) const TESTS: &[Test] =
    &[("limits_conf_is_low_for_a_login", low), ("limits_conf_was_raised_after_the_login", raised)];

const LIMITS: &str = "/etc/security/limits.conf";

/// The server, started from a login of a user; it ends with this.
struct Login(Child);

impl Login {
    #[track_caller]
    fn start() -> Self {
        install();
        let mut command = Command::new("runuser");
        command.args(["--login", "nobody", "--command"]).arg(format!("WEB={PORT} exec {PROGRAM}"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0).spawn();
        let this = Self(child.expect("run runuser"));
        wait_until_it_listens();
        this
    }

    /// What runuser has started has become the server.
    #[track_caller]
    fn pid(&self) -> u32 {
        let own = self.0.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
        children.trim().parse().unwrap_or_else(|_| panic!("not one child: {children:?}"))
    }

    fn end(&mut self) {
        // A login has a process group of its own, and runuser tells it to end.
        let own = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = killpg(own, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.end();
    }
}

/// `limits.conf` as it is given, until this is dropped.
struct Limits(Option<String>);

impl Limits {
    fn set(text: &str) -> Self {
        let before = fs::read_to_string(LIMITS).ok();
        fs::write(LIMITS, text).unwrap();
        Self(before)
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        fs::write(LIMITS, self.0.take().unwrap_or_default()).unwrap();
        let _ = fs::remove_file("/etc/security/limits.d/zz-nofile.conf");
    }
}

fn low() {
    let _limits = Limits::set("# Low\nnobody - nofile 64\n");
    let mut login = Login::start();
    let pid = login.pid();
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::new();
    let said = exhaust(&mut fdtrace, &mut clients, pid, "EMFILE");
    said.is("hard_limit_low", "certain", &["nofile limit 64", &format!("{LIMITS}:2")]);
    carry_out(said.command("for_good"));
    log_in_again(fdtrace, &mut login, pid);
}

fn raised() {
    let _limits = Limits::set("# Low\nnobody - nofile 64\n");
    let mut login = Login::start();
    later();
    fs::write(LIMITS, "# Low\nnobody - nofile 1000\n").unwrap();
    let pid = login.pid();
    let mut fdtrace = Fdtrace::start(&[]);
    let mut clients = Clients::new();
    let said = exhaust(&mut fdtrace, &mut clients, pid, "EMFILE");
    said.is("raised_after_start", "certain", &[&format!("{LIMITS}:2 was changed to 1000")]);
    let [to_do] = said.texts("for_good")[..] else { panic!("{:#}", said.first()) };
    assert!(to_do.starts_with("log in again"), "{to_do}");
    log_in_again(fdtrace, &mut login, pid);
}

/// As it is told to, in words.
#[track_caller]
fn log_in_again(mut fdtrace: Fdtrace, login: &mut Login, before: u32) {
    login.end();
    let count = ends(&mut fdtrace, before, "exited");
    let _again = Login::start();
    Clients::new().are_served(70);
    settle(fdtrace, before, count);
}
