//! A process and its ancestors, from `/proc`.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    super::{cgroup, parse},
    role::role,
    root::{Root, reason},
};
use crate::model::{Ancestor, BootTime, ChainEnd, Comm, Manager, Pid, ProcessId, Role, Unit};

/// Deeper trees are rare, and what governs a limit is near.
const MOST_ANCESTORS: usize = 32;
/// Files of `/proc/PID` are this long at most, or are cut.
const MOST_BYTES: u64 = 16 * 1024;
const MOST_ARGUMENTS: usize = 64;

/// `PROC_USER_INIT_INO` of include/linux/proc_ns.h: the initial user namespace.
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";
/// Bits of include/uapi/linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// The chain, and beside each process what only the search for settings needs.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) members: Vec<Member>,
    pub(super) end: ChainEnd,
    pub(super) unknown: Vec<String>,
}

/// One process.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) ancestor: Ancestor,
    /// Who logged in, in the session it descends from; `None` where it descends from none.
    pub(super) login_uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) cwd: Option<PathBuf>,
}

impl Member {
    pub(super) fn arguments(&self) -> &[Vec<u8>] {
        self.ancestor.cmdline.as_deref().unwrap_or_default()
    }

    pub(super) fn pid(&self) -> Pid {
        self.ancestor.id.pid
    }
}

/// Reads the chain from a process upward.
pub(super) fn read(root: &Root, pid: Pid) -> Chain {
    let proc = root.path().join("proc");
    let mut chain = Chain { members: Vec::new(), end: ChainEnd::Init, unknown: Vec::new() };
    let booted = boot_date(&proc);
    if booted.is_none() {
        chain.unknown.push("could not read the date of the boot from /proc/stat".into());
    }
    let mut next = pid;
    // Parent 0: the parent is outside of the pid namespace, or there is none.
    while next != Pid(0) {
        if chain.members.len() >= MOST_ANCESTORS {
            chain.end = ChainEnd::TooLong;
            break;
        }
        match member(&proc, next, booted, &mut chain.unknown) {
            Ok((member, parent)) => {
                chain.members.push(member);
                next = parent;
            }
            Err(error) => {
                let what = format!("could not read /proc/{next}/stat: {}", reason(&error));
                chain.unknown.push(what.clone());
                chain.end = ChainEnd::Unreadable(what);
                break;
            }
        }
    }
    chain
}

fn member(
    proc: &Path,
    pid: Pid,
    booted: Option<SystemTime>,
    unknown: &mut Vec<String>,
) -> io::Result<(Member, Pid)> {
    let dir = proc.join(pid.to_string());
    let stat = read_stat(&dir)?;
    let mut note = |name: &str, error: &io::Error| {
        unknown.push(format!("could not read /proc/{pid}/{name}: {}", reason(error)));
    };
    let mut text = |name: &str| {
        let bytes = bytes(&dir.join(name)).inspect_err(|error| note(name, error)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let status = text("status").unwrap_or_default();
    let limits = text("limits").and_then(|text| parse::fd_limits(&text));
    let cgroup = text("cgroup").unwrap_or_default();
    let mut comm = bytes(&dir.join("comm")).unwrap_or_default();
    comm.truncate(comm.iter().position(|byte| *byte == b'\n').unwrap_or(comm.len()));
    let cmdline = bytes(&dir.join("cmdline")).ok();
    let cmdline = cmdline.and_then(|bytes| parse::arguments(&bytes, MOST_ARGUMENTS));
    let exe = fs::read_link(dir.join("exe")).ok();
    let placement = cgroup::placement(&cgroup);
    let is_initial = fs::read_link(dir.join("ns/user"))
        .ok()
        .map(|link| link.as_os_str() == INITIAL_USER_NAMESPACE);
    let capability = |bit: u32| {
        let effective = u64::from_str_radix(field(&status, "CapEff:")?.trim(), 16).ok()?;
        if effective >> bit & 1 == 0 { Some(false) } else { is_initial }
    };
    let since_boot = Duration::from_nanos(stat.start_ticks.saturating_mul(nanos_of_tick()));
    let ancestor = Ancestor {
        id: ProcessId { pid, started: BootTime(since_boot) },
        role: role(pid.0, &comm, exe.as_deref(), cmdline.as_deref().unwrap_or_default()),
        comm: Comm::from_bytes(&comm),
        exe,
        cmdline,
        started_at: booted.and_then(|booted| booted.checked_add(since_boot)),
        uid: number(&status, "Uid:"),
        limits,
        unit: placement.unit.map(|name| Unit { manager: manager(&cgroup, &name), name }),
        container: placement.container.map(|container| container.id),
        may_raise_hard: capability(CAP_SYS_RESOURCE),
        above_file_max: capability(CAP_SYS_ADMIN),
        go: None,
        settings: Vec::new(),
    };
    let login_uid = bytes(&dir.join("loginuid")).ok().and_then(|bytes| login_uid(&bytes));
    let gid = number(&status, "Gid:");
    let cwd = fs::read_link(dir.join("cwd")).ok();
    // The files were read by name, one after the other: they are one process's if the pid was not
    // given to another meanwhile.
    if read_stat(&dir)?.start_ticks != stat.start_ticks {
        return Err(io::ErrorKind::NotFound.into());
    }
    let parent = number(&status, "PPid:").ok_or(io::ErrorKind::InvalidData)?;
    Ok((Member { ancestor, login_uid, gid, cwd }, Pid(parent)))
}

fn read_stat(dir: &Path) -> io::Result<parse::Stat> {
    parse::stat(&bytes(&dir.join("stat"))?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn nanos_of_tick() -> u64 {
    1_000_000_000 / procfs::ticks_per_second().max(1)
}

/// `btime` of `/proc/stat`, cut to a second: dates that follow are up to a second too early.
fn boot_date(proc: &Path) -> Option<SystemTime> {
    // The lines of the CPUs and interrupts come first, on large machines 100 KiB of them.
    const MOST_STAT: u64 = 1024 * 1024;
    let mut text = String::new();
    File::open(proc.join("stat")).ok()?.take(MOST_STAT).read_to_string(&mut text).ok()?;
    let seconds = field(&text, "btime ")?.trim().parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

/// The first number of a line.
fn number(status: &str, name: &str) -> Option<u32> {
    field(status, name)?.split_ascii_whitespace().next()?.parse().ok()
}

/// `(uid_t)-1` says that nobody logged in.
fn login_uid(bytes: &[u8]) -> Option<u32> {
    let uid: u32 = str::from_utf8(bytes).ok()?.trim().parse().ok()?;
    (uid != u32::MAX).then_some(uid)
}

/// A unit below `user@UID.service` belongs to that user's manager; that service itself to the
/// system's.
fn manager(cgroup: &str, unit: &str) -> Manager {
    let user = cgroup.split('/').find_map(|part| {
        let uid = part.strip_prefix("user@")?.strip_suffix(".service")?;
        uid.parse().ok()
    });
    match user {
        Some(uid) if !unit.starts_with("user@") => Manager::User(uid),
        _ => Manager::System,
    }
}

/// The highest member from `from` on that is like it in some way, without a gap.
pub(super) fn highest(members: &[Member], from: usize, is_like: impl Fn(&Member) -> bool) -> usize {
    let like = members[from..].iter().take_while(|member| is_like(member)).count();
    from + like.saturating_sub(1)
}

/// Whether a role may sit between a login and what it started.
pub(super) fn is_login(member: &Member) -> bool {
    member.ancestor.role.opens_sessions()
}

/// Whether the process manages the units below it.
pub(super) fn is_user_manager(member: &Member) -> bool {
    member.ancestor.role == Role::SystemdUser
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers() {
        let of = |cgroup: &str, unit: &str| manager(cgroup, unit);
        let user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service";
        assert_eq!(of(user, "web.service"), Manager::User(1000));
        let own = "0::/user.slice/user-1000.slice/user@1000.service/init.scope";
        assert_eq!(of(own, "user@1000.service"), Manager::System);
        assert_eq!(of("0::/system.slice/nginx.service", "nginx.service"), Manager::System);
    }

    #[test]
    fn login_uids() {
        assert_eq!(login_uid(b"1000"), Some(1000));
        assert_eq!(login_uid(b"0\n"), Some(0));
        assert_eq!(login_uid(b"4294967295"), None);
        assert_eq!(login_uid(b""), None);
    }

    /// This very process, in the real `/proc`.
    #[test]
    fn the_running_kernel() {
        let root = Root::open(Path::new("/")).unwrap();
        let chain = read(&root, Pid(std::process::id()));
        let own = &chain.members[0];
        assert_eq!(own.ancestor.exe, Some(std::env::current_exe().unwrap()));
        assert!(own.ancestor.limits.is_some());
        assert_eq!(own.cwd, std::env::current_dir().ok());
        let started = own.ancestor.started_at.unwrap();
        assert!(started <= SystemTime::now(), "{started:?}");
        assert!(started.elapsed().unwrap() < Duration::from_secs(3600));
        assert_eq!(chain.end, ChainEnd::Init);
        assert_eq!(chain.members.last().unwrap().pid(), Pid(1));
        assert!(chain.members.len() > 1);
    }

    #[test]
    fn a_process_that_is_gone() {
        let root = Root::open(Path::new("/")).unwrap();
        // Above every pid_max.
        let chain = read(&root, Pid(5_000_000));
        assert!(chain.members.is_empty());
        assert!(matches!(chain.end, ChainEnd::Unreadable(_)), "{:?}", chain.end);
        assert!(chain.unknown[0].starts_with("could not read /proc/5000000/stat: "));
    }
}
