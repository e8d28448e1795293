//! The story that fdtrace was written for, on a real supervisord: its soft limit is that of a program
//! that leaves its own as it is. What fdtrace writes to supervisord's configuration is written there,
//! supervisord is started again, and the program has more.

use std::{ffi::CString, fs, os::unix::ffi::OsStrExt as _, path::Path, process::Command};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::{Value, json};

use crate::{
    Test, asyncio,
    clients::{Answer, Clients, HTTP},
    go,
    server::{Home, Server, only_child, program},
    support::{Diagnosed, Fdtrace, carry_out, number},
};

pub(crate) const TESTS: &[Test] = &[
    ("supervisord_with_a_low_minfds", minfds),
    ("supervisord_started_before_limits_conf_was_raised", before_limits_conf_was_raised),
];

/// What supervisord may raise its limit to: as much as any host lets it have.
const HARD: u64 = 4096;
/// asyncio calls accept as often as its backlog is long each time, also when it fails.
const ROUND: u64 = 100;
const AT_ONCE: usize = 50;

/// The setting is what was wanted once, and nobody has touched it.
fn minfds() {
    const LIMIT: u64 = 64;
    let home = Home::new();
    let config = configure(&home, &format!("minfds = {LIMIT}\n"));
    let server = home.start(&mut go::supervisord(&config), LIMIT, HARD);
    let fdtrace = Fdtrace::start(&[]);
    let said = Failing::at(LIMIT, fdtrace, server, HARD).of(|server, said| {
        let place = format!("{}:{}", config.display(), line_of(&config, "minfds = 64"));
        let supervisord = format!("supervisord[{}]", server.pid());
        said.is(
            "soft_limit_low",
            "certain",
            &[
                "soft nofile limit 64 (hard 4096)",
                &format!("inherited from {supervisord} (also 64): minfds in {place}"),
            ],
        );
        assert_eq!(said.source("configured_limit"), place);
        let [to_do] = said.texts("for_good")[..] else { panic!("{:#}", said.first()) };
        assert!(
            to_do.contains(&format!("to {place}, then restart {supervisord} itself")),
            "{to_do}"
        );
    });
    said.ends(&mut go::supervisord(&config), 200);
}

/// limits.conf says 100000 since then, and the login that started supervisord had 1024: what is to be
/// done is in supervisord's own configuration, whoever starts it the next time.
fn before_limits_conf_was_raised() {
    const LIMIT: u64 = 1024;
    let home = Home::new();
    let config = configure(&home, "");
    let limits_conf = home.path("limits.conf");
    let server = home.start(&mut from_a_login(&config), LIMIT, HARD);
    std::thread::sleep(crate::started::LATER);
    fs::write(&limits_conf, "# as its manual says\nroot - nofile 100000\n").unwrap();
    // The host's own stays as it is.
    let mounted = CString::new(limits_conf.as_os_str().as_bytes()).unwrap();
    let fdtrace = Fdtrace::start_changed(&[], move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&std::ffi::CStr>;
        mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let to = c"/etc/security/limits.conf";
        Ok(mount(Some(mounted.as_c_str()), to, none, MsFlags::MS_BIND, none)?)
    });
    let said = Failing::at(LIMIT, fdtrace, server, HARD).of(|server, said| {
        let supervisord = format!("supervisord[{}]", only_child(server.pid()));
        said.is(
            "raised_after_start",
            "certain",
            &[
                "soft nofile limit 1024 (hard 4096)",
                &format!("inherited from {supervisord} (also 1024), which started "),
                " before /etc/security/limits.conf:2 was changed to 100000",
            ],
        );
        assert_eq!(said.source("configured_limit"), "/etc/security/limits.conf:2");
        let [to_do] = said.texts("for_good")[..] else { panic!("{:#}", said.first()) };
        let place = format!("to {}, section [supervisord], ", config.display());
        assert!(to_do.starts_with("write minfds=") && to_do.contains(&place), "{to_do}");
        let restart = format!("then restart {supervisord} itself, and {} with it", go::PROGRAM);
        assert!(to_do.contains(&restart), "{to_do}");
    });
    said.ends(&mut from_a_login(&config), 1500);
}

/// A program under supervisord that leaves its limit as it is.
#[track_caller]
fn configure(home: &Home, own: &str) -> std::path::PathBuf {
    let python = program("python3");
    let command = format!("{} -u {} {}", python.display(), asyncio::SCRIPT, home.port);
    go::supervisord_conf(home, own, &command)
}

/// With a session of PAM's.
fn from_a_login(config: &Path) -> Command {
    let supervisord = go::supervisord(config);
    let mut command = Command::new(program("runuser"));
    command.args(["-u", "root", "--"]).arg(supervisord.get_program()).args(supervisord.get_args());
    command
}

#[track_caller]
fn line_of(file: &Path, text: &str) -> usize {
    let all = fs::read_to_string(file).unwrap();
    1 + all.lines().position(|line| line == text).unwrap()
}

/// A server of supervisord's at its limit.
struct Failing {
    fdtrace: Fdtrace,
    server: Server,
    clients: Clients,
    pid: u32,
    soft: u64,
    hard: u64,
}

impl Failing {
    #[track_caller]
    fn at(soft: u64, fdtrace: Fdtrace, server: Server, hard: u64) -> Self {
        let pid = go::pid_of_supervisorctl(&server);
        let mut clients = Clients::of(server.port(), HTTP);
        let at_most = usize::try_from(soft).unwrap() + 100;
        assert_eq!(clients.open_until_refused(at_most).1, Answer::Waiting);
        Self { fdtrace, server, clients, pid, soft, hard }
    }

    /// `is_right` of what is said, and what is to be written is written.
    #[track_caller]
    fn of(mut self, is_right: impl FnOnce(&Server, &Diagnosed)) -> Self {
        let fields = json!({ "process": { "pid": self.pid }, "failure": "EMFILE" });
        let said = Diagnosed::of(&mut self.fdtrace, &fields);
        is_right(&self.server, &said);
        carry_out(said.command("for_good"));
        self
    }

    /// supervisord is started as before, which is all that was left to do: the process that failed is
    /// gone, the next one serves more than it could, and what was counted is what it has logged.
    #[track_caller]
    fn ends(self, command: &mut Command, served: usize) {
        let Self { mut fdtrace, mut server, clients, pid, soft, hard } = self;
        server.restart(command, soft, hard);
        let exited = json!({ "process": { "pid": pid }, "outcome": "exited" });
        let closed = fdtrace.reported("episode_closed", &exited);
        drop(clients);
        let mut clients = Clients::of(server.port(), HTTP);
        // No more at once than its queue has room for.
        for _ in 0..served / AT_ONCE {
            clients.open(AT_ONCE);
            clients.last_are_served(AT_ONCE);
        }
        let run = fdtrace.stop();
        server.stop();
        let logged = server.lines("server.log", asyncio::FAILED).len() as u64;
        let of: Value = json!({ "listener": { "port": server.port() } });
        println!("    logged {logged}, counted {}", run.count(&of));
        let counted = run.count(&of);
        assert_eq!(number(&closed, "/count"), counted);
        // Its log is written by supervisord, which has ended with what it had not read: of one round of
        // accept at most.
        assert!((logged..=logged + ROUND).contains(&counted), "{logged} {counted}");
        run.assert_lost_nothing();
    }
}
