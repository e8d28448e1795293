//! Real programs of this machine. Where one is not installed, its test is left out, and says so.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use fdtrace::{
    diagnose::Failed,
    enrich::provenance,
    model::{
        Cause, Certainty, Limit, Pid, Place, Program, Provenance, Role, Runtime, SettingSource,
    },
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::{diagnosed, limits};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

fn read(pid: u32) -> Provenance {
    provenance::read(Path::new("/"), Pid(pid))
}

fn soft(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[track_caller]
fn wait_for<T>(what: &str, mut is_there: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = is_there() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20));
    }
}

/// A program that ends with its test, and its children with it.
struct Server(Child);

impl Server {
    fn start(command: &mut Command, soft: u64) -> Self {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // SAFETY: a system call only, which is allowed between fork and exec.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
                Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?)
            })
        };
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn child(&self) -> Option<u32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn installed(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(path);
    if path.is_file() {
        return Some(path);
    }
    println!("left out: {} is not installed", path.display());
    None
}

/// Whether supervisord's child has become the program.
fn is_sleeping(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == b"sleep\n")
}

fn shell(command: &str) {
    println!("    {command}");
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
}

/// minfds decides; the remedies are carried out one after the other, and each does what it says.
#[test]
fn supervisord() {
    let Some(program) = installed("/usr/bin/supervisord") else { return };
    let dir = TempDir::new().unwrap();
    let conf = dir.path().join("supervisord.conf");
    let at = dir.path().display();
    fs::write(
        &conf,
        format!(
            "[supervisord]\nnodaemon=true\nminfds=256\nlogfile={at}/log\npidfile={at}/pid\n\
             childlogdir={at}\n[program:sleeper]\ncommand=/bin/sleep 600\n"
        ),
    )
    .unwrap();
    let start = || {
        let mut command = Command::new(&program);
        Server::start(command.arg("-n").arg("-c").arg(&conf), 128)
    };
    let server = start();
    let child = wait_for("supervisord starts its program", || {
        server.child().filter(|child| is_sleeping(*child) && soft(*child) == Some(256))
    });
    let provenance = read(child);
    assert_eq!(provenance.chain[1].role, Role::Supervisord);
    let setting = &provenance.chain[1].settings[0];
    assert_eq!(setting.soft, Some(Limit::Of(256)));
    let Place::File(file) = &setting.place else { panic!("{setting:?}") };
    assert_eq!((&file.path, file.line), (&conf, Some(3)));
    assert_eq!(setting.source, SettingSource::Minfds { program: Some("sleeper".into()) });
    let found = diagnosed(&provenance);
    println!("    {}", found.why);
    assert_eq!((found.cause, found.certainty), (Cause::SoftLimitLow, Certainty::Certain));
    let expected = format!("inherited from supervisord[{}] (also 256): minfds in", server.pid());
    assert!(found.why.contains(&expected), "{}", found.why);

    // Now: the soft limit of the program.
    let command = found.remedies[0].command.as_ref().unwrap();
    shell(command);
    assert!(soft(child).unwrap() > 256);
    shell(&format!("prlimit --pid {child} --nofile=256:"));

    // For good: the file is edited, and supervisord is older than that.
    sleep(Duration::from_millis(2500));
    let keep = found.remedies.last().unwrap();
    shell(keep.command.as_ref().unwrap());
    let found = diagnosed(&read(child));
    println!("    {}", found.why);
    assert_eq!((found.cause, found.certainty), (Cause::RaisedAfterStart, Certainty::Certain));
    assert!(found.remedies.last().unwrap().text.starts_with("the setting is right by now"));

    drop(server);
    let server = start();
    let child = wait_for("supervisord starts its program", || {
        server.child().filter(|child| is_sleeping(*child) && soft(*child) > Some(256))
    });
    let found = limits(&read(child), Failed::Nothing);
    assert!(found.iter().all(|one| one.cause != Cause::RaisedAfterStart), "{found:#?}");
}

/// A worker sets its limit itself, and a reload gives the next ones another.
#[test]
fn nginx() {
    let Some(program) = installed("/usr/sbin/nginx") else { return };
    let dir = TempDir::new().unwrap();
    let conf = dir.path().join("nginx.conf");
    let at = dir.path().display();
    fs::write(
        &conf,
        format!(
            "pid {at}/pid;\nerror_log {at}/log;\nworker_rlimit_nofile 64;\nworker_processes 1;\n\
             events {{}}\n"
        ),
    )
    .unwrap();
    let mut command = Command::new(program);
    let server = Server::start(
        command.arg("-p").arg(dir.path()).arg("-c").arg(&conf).args(["-g", "daemon off;"]),
        512,
    );
    let worker = wait_for("nginx starts a worker", || {
        server.child().filter(|child| soft(*child) == Some(64))
    });
    let provenance = read(worker);
    assert_eq!(provenance.runtime, Runtime::Program(Program::Nginx));
    let found = diagnosed(&provenance);
    println!("    {}", found.why);
    assert_eq!((found.cause, found.certainty), (Cause::OwnSetting, Certainty::Certain));
    let expected = format!("worker_rlimit_nofile in {}:3", conf.display());
    assert!(found.why.ends_with(&expected), "{}", found.why);
    let keep = found.remedies.last().unwrap();
    shell(keep.command.as_ref().unwrap());
    wait_for("nginx starts a worker with more", || {
        server.child().filter(|child| soft(*child) > Some(64))
    });
}

/// Redis in its directory, with a file that lets it have 200 clients: it has asked for so many
/// descriptors, and done with its arguments what it does.
fn redis_in(dir: &TempDir, program: &Path, more: &str) -> (Server, PathBuf) {
    let conf = dir.path().join("redis.conf");
    let at = dir.path().display();
    let text = format!("port 0\nunixsocket {at}/s\nsave \"\"\nmaxclients 200\n{more}");
    fs::write(&conf, text).unwrap();
    let server = redis_with(program, &conf);
    wait_for("redis asks for its limit", || (soft(server.pid()) == Some(232)).then_some(()));
    (server, conf)
}

/// Its socket is there before it replaces its arguments, if it does, and it answers after that.
fn redis_with(program: &Path, conf: &Path) -> Server {
    let server = Server::start(Command::new(program).arg(conf), 128);
    let socket = conf.with_file_name("s");
    wait_for("redis answers", || {
        let mut client = UnixStream::connect(&socket).ok()?;
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"PING\r\n").ok()?;
        (client.read(&mut [0; 16]).ok()? > 0).then_some(())
    });
    server
}

/// By default it replaces its arguments, and no other file is believed.
#[test]
fn redis() {
    let Some(program) = installed("/usr/bin/redis-server") else { return };
    let dir = TempDir::new().unwrap();
    let (server, _) = redis_in(&dir, &program, "");
    let provenance = read(server.pid());
    assert_eq!(provenance.runtime, Runtime::Program(Program::Redis));
    assert_eq!(provenance.chain[0].settings[0].soft, None, "{provenance:#?}");
    let found = diagnosed(&provenance);
    println!("    {}", found.why);
    assert_eq!((found.cause, found.certainty), (Cause::HardLimitLow, Certainty::Likely));
    let expected = "found no configuration of redis-server";
    assert!(found.unknown.iter().any(|what| what.starts_with(expected)), "{found:#?}");
    assert!(found.remedies.last().unwrap().text.starts_with("set \"maxclients "));
}

/// Where it leaves them, they name the file: what is to be written there is written, and it has more.
#[test]
fn redis_that_keeps_its_arguments() {
    let Some(program) = installed("/usr/bin/redis-server") else { return };
    let dir = TempDir::new().unwrap();
    let (server, conf) = redis_in(&dir, &program, "set-proc-title no\n");
    let found = diagnosed(&read(server.pid()));
    println!("    {}", found.why);
    assert_eq!((found.cause, found.certainty), (Cause::OwnSetting, Certainty::Certain));
    let expected = format!("maxclients in {}:4", conf.display());
    assert!(found.why.ends_with(&expected), "{}", found.why);
    let keep = found.remedies.last().unwrap();
    println!("    {}", keep.text);
    shell(keep.command.as_ref().unwrap());
    drop(server);
    let server = redis_with(&program, &conf);
    assert!(soft(server.pid()).unwrap() > 232);
}

/// Whatever runs here: each is read and diagnosed, and what nobody may read is told.
#[test]
fn every_process_here() {
    let mut times = Vec::new();
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        let start = Instant::now();
        let provenance = read(pid);
        times.push(start.elapsed());
        for failed in [Failed::Nothing, Failed::Descriptor, Failed::Handle] {
            for found in limits(&provenance, failed) {
                assert!(!found.why.is_empty());
            }
        }
        if provenance.chain.is_empty() {
            assert!(!provenance.unknown.is_empty(), "{pid}");
        }
    }
    times.sort_unstable();
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    println!("    {} processes: median {median:?}, at most {most:?}", times.len());
}

/// All of it for this very process, and how long that takes.
#[test]
fn takes_milliseconds() {
    const ROUNDS: u32 = 50;
    let pid = std::process::id();
    let provenance = read(pid);
    assert!(provenance.chain.len() > 1);
    let mut slowest = Duration::ZERO;
    let all = Instant::now();
    for _ in 0..ROUNDS {
        let one = Instant::now();
        std::hint::black_box(read(pid));
        slowest = slowest.max(one.elapsed());
    }
    let mean = all.elapsed() / ROUNDS;
    println!("    {} processes: {mean:?} on average, {slowest:?} at most", provenance.chain.len());
    // Ten times what it takes on a machine that is busy with other tests.
    assert!(mean < Duration::from_millis(50), "{mean:?}");
}
