//! A unit that runs the server, and clients of it.

use std::{
    fs,
    io::Read as _,
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    support::{Diagnosed, Fdtrace, Run, number},
    web,
};

/// How long anything may take: the machine is emulated.
const PATIENCE: Duration = Duration::from_secs(30);
/// fdtrace takes a file for changed after a start only where it is by more than the dates are exact
/// to.
const LATER: Duration = Duration::from_millis(2500);

/// More than any of the limits has room for.
const MOST_CLIENTS: usize = 200;

pub(crate) const PORT: u16 = 9088;
/// Its name, as fdtrace shows it.
pub(crate) const PROGRAM: &str = "/srv/web";

/// The service `web`, stopped and taken away when this is dropped.
pub(crate) struct Unit;

impl Unit {
    /// Writes its file and starts it. `settings` follow in its section [Service], from line 7 on.
    #[track_caller]
    pub(crate) fn start(path: &str, settings: &str) -> Self {
        let unit = Self::start_other(path, settings);
        wait_until_it_listens();
        unit
    }

    /// The same, where the settings have it do something else than listen.
    #[track_caller]
    pub(crate) fn start_other(path: &str, settings: &str) -> Self {
        install();
        fs::create_dir_all("/usr/lib/systemd/system").unwrap();
        let text = format!(
            "[Unit]\nDescription=Runs out\nDefaultDependencies=no\n\
             [Service]\nExecStart={PROGRAM}\nEnvironment=WEB={PORT}\n{settings}"
        );
        fs::write(path, text).unwrap();
        let unit = Self;
        systemctl(&["daemon-reload"]);
        systemctl(&["start", "web.service"]);
        unit
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = Command::new("systemctl").args(["stop", "web.service"]).status();
        for dir in ["/etc/systemd/system", "/usr/lib/systemd/system"] {
            let _ = fs::remove_file(format!("{dir}/web.service"));
            let _ = fs::remove_dir_all(format!("{dir}/web.service.d"));
        }
    }
}

/// The process that systemd has started for the unit.
#[track_caller]
pub(crate) fn main_pid() -> u32 {
    let shown = systemctl(&["show", "--property=MainPID", "--value", "web.service"]);
    shown.trim().parse().unwrap()
}

/// Puts the server where its units look for it.
#[track_caller]
pub(crate) fn install() {
    if !Path::new(PROGRAM).exists() {
        fs::create_dir_all("/srv").unwrap();
        fs::hard_link(std::env::current_exe().unwrap(), PROGRAM).unwrap();
    }
}

#[track_caller]
pub(crate) fn systemctl(args: &[&str]) -> String {
    let output = Command::new("systemctl").args(args).output().expect("run systemctl");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "systemctl {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
pub(crate) fn wait_until_it_listens() {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).is_err() {
        if Instant::now() > deadline {
            let _ = Command::new("systemctl").args(["status", "web.service"]).status();
            let _ = Command::new("journalctl").args(["-n", "30"]).status();
            panic!("nobody listens");
        }
        sleep(Duration::from_millis(50));
    }
}

/// Waits until a file that is written now is later than what was started before.
pub(crate) fn later() {
    sleep(LATER);
}

/// Clients that stay.
pub(crate) struct Clients(Vec<TcpStream>);

impl Clients {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    #[track_caller]
    fn come(&mut self) {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).expect("connect");
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        self.0.push(client);
    }

    /// Until the server of that process has failed; one more, who waits, is the last.
    #[track_caller]
    pub(crate) fn until_it_fails(&mut self, pid: u32) {
        for _ in 0..MOST_CLIENTS {
            self.come();
            // So that no more are left waiting than its queue has room for.
            sleep(Duration::from_millis(5));
            if web::failures(pid) > 0 {
                return self.come();
            }
        }
        panic!("{MOST_CLIENTS} clients came, and the server has not failed");
    }

    /// So many more, all of them served.
    #[track_caller]
    pub(crate) fn are_served(&mut self, count: usize) {
        for _ in 0..count {
            self.come();
            self.last_is_served();
        }
    }

    /// Whoever came last is served, also after having been left waiting.
    #[track_caller]
    pub(crate) fn last_is_served(&mut self) {
        let mut answer = [0; 3];
        let last = self.0.last_mut().unwrap();
        last.read_exact(&mut answer).expect("the server serves its last client");
    }
}

/// What an episode of the server is known by.
pub(crate) fn episode(pid: u32, failure: &str) -> Value {
    json!({
        "process": { "pid": pid, "comm": "web" },
        "listener": { "family": "inet", "address": "127.0.0.1", "port": PORT },
        "failure": failure,
        "door": "accept4",
    })
}

/// Drives the server of that process out of descriptors: what fdtrace says of it.
#[track_caller]
pub(crate) fn exhaust(
    fdtrace: &mut Fdtrace,
    clients: &mut Clients,
    pid: u32,
    failure: &str,
) -> Diagnosed {
    clients.until_it_fails(pid);
    let fields = episode(pid, failure);
    fdtrace.reported("episode_opened", &fields);
    Diagnosed::of(fdtrace, &fields)
}

/// Waits until the episode has ended like that.
#[track_caller]
pub(crate) fn ends(fdtrace: &mut Fdtrace, pid: u32, outcome: &str) -> u64 {
    let fields = json!({ "process": { "pid": pid }, "outcome": outcome });
    number(&fdtrace.reported("episode_closed", &fields), "/count")
}

/// Ends fdtrace; it must have counted what the process has, and nothing of anybody else.
#[track_caller]
pub(crate) fn settle(fdtrace: Fdtrace, pid: u32, in_episode: u64) -> Run {
    let run = fdtrace.stop();
    let (truth, counted) = (web::failures(pid), run.count(&json!({ "process": { "pid": pid } })));
    println!("    failed {truth} times, counted {counted}");
    assert_eq!((counted, in_episode), (truth, truth), "{:#}", run.summary());
    assert_eq!(run.count(&json!({})), truth, "{:#}", run.summary());
    run.assert_lost_nothing();
    run
}
