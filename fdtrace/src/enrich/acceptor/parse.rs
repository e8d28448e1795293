//! Bytes of files in `/proc/PID/task/TID` → values. Total: any bytes give a value or `None`.

use std::time::Duration;

use crate::model::{Comm, Pid, Syscall};

/// What is needed of `stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) comm: Comm,
    pub(super) state: u8,
    /// Clock ticks in user mode and in the kernel.
    pub(super) cpu_ticks: u64,
}

/// How much of a core a thread had so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// On a core.
    pub(super) ran: Duration,
    /// Ready for one, and not given any; `None` where the kernel does not tell.
    pub(super) waited: Option<Duration>,
}

/// Reads `stat`. The name in it may hold spaces, parentheses and anything but UTF-8.
pub(super) fn stat(bytes: &[u8]) -> Option<Stat> {
    // proc_pid_stat(5) counts from 1, and the state, which follows the name, is field 3.
    const STATE: usize = 3;
    const UTIME: usize = 14;
    let name_start = bytes.iter().position(|byte| *byte == b'(')? + 1;
    let name_end = bytes.iter().rposition(|byte| *byte == b')')?;
    let comm = Comm::from_bytes(bytes.get(name_start..name_end)?);
    let text = str::from_utf8(&bytes[name_end + 1..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let user: u64 = fields.nth(UTIME - STATE - 1)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Stat { comm, state, cpu_ticks: user.saturating_add(system) })
}

/// Reads `schedstat`: time on a core, time waiting for one, how often.
pub(super) fn schedstat(text: &str) -> Option<Times> {
    let mut fields = text.split_ascii_whitespace();
    let mut nanos = || fields.next()?.parse().ok().map(Duration::from_nanos);
    let (ran, waited) = (nanos()?, nanos()?);
    // All zeros: it is there, but nothing is counted (fs/proc/base.c proc_pid_schedstat,
    // sched_info_on).
    (!ran.is_zero()).then_some(Times { ran, waited: Some(waited) })
}

pub(super) fn ticks(ticks: u64) -> Times {
    let nanos = 1_000_000_000 / procfs::ticks_per_second().max(1);
    Times { ran: Duration::from_nanos(ticks.saturating_mul(nanos)), waited: None }
}

/// Reads `wchan`: `0` where the thread does not wait, or nobody may know.
pub(super) fn wchan(text: &str) -> Option<String> {
    let name = text.trim();
    (!name.is_empty() && name != "0").then(|| name.to_owned())
}

/// Reads `syscall`: the number and its arguments, `running`, or `-1` outside of any.
pub(super) fn syscall(text: &str) -> Option<Syscall> {
    let mut fields = text.split_ascii_whitespace();
    let number: i64 = fields.next()?.parse().ok().filter(|number| *number >= 0)?;
    let first_argument = u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()?;
    Some(Syscall { number, name: name(number), first_argument })
}

/// Those that acceptors wait in.
fn name(number: i64) -> Option<&'static str> {
    let known = [
        (libc::SYS_accept, "accept"),
        (libc::SYS_accept4, "accept4"),
        (libc::SYS_epoll_pwait, "epoll_pwait"),
        (libc::SYS_ppoll, "ppoll"),
        (libc::SYS_pselect6, "pselect6"),
        (libc::SYS_io_uring_enter, "io_uring_enter"),
        (libc::SYS_futex, "futex"),
        (libc::SYS_nanosleep, "nanosleep"),
        (libc::SYS_clock_nanosleep, "clock_nanosleep"),
        (libc::SYS_read, "read"),
        (libc::SYS_write, "write"),
        (libc::SYS_writev, "writev"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_recvmsg, "recvmsg"),
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_sendmsg, "sendmsg"),
        (libc::SYS_connect, "connect"),
        (libc::SYS_fsync, "fsync"),
        (libc::SYS_fdatasync, "fdatasync"),
        (libc::SYS_openat, "openat"),
        (libc::SYS_flock, "flock"),
        (libc::SYS_wait4, "wait4"),
        (libc::SYS_waitid, "waitid"),
        (libc::SYS_rt_sigsuspend, "rt_sigsuspend"),
        (libc::SYS_rt_sigtimedwait, "rt_sigtimedwait"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_epoll_wait, "epoll_wait"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_poll, "poll"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_select, "select"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_pause, "pause"),
    ];
    known.into_iter().find(|(known, _)| *known == number).map(|(_, name)| name)
}

/// Reads `TracerPid` of `status`.
pub(super) fn tracer(status: &str) -> Option<Pid> {
    let text = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    text.trim().parse().ok().filter(|pid| *pid != 0).map(Pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats() {
        let rest = b" D 1 812 812 0 -1 4194560 2043 0 0 0 11 7 0 0 20 0 4 0 88123 226131968 1";
        for name in [&b"nginx"[..], b"a) R (b", b"\xff\xfe\n)", b""] {
            let line = [b"812 (", name, b")", &rest[..]].concat();
            let expected = Stat { comm: Comm::from_bytes(name), state: b'D', cpu_ticks: 18 };
            assert_eq!(stat(&line), Some(expected), "{name:?}");
        }
        for bytes in [&b""[..], b"812", b"812 (x)", b"812 (x) S 1 2", b")( S", b"(x) S \xff"] {
            assert_eq!(stat(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn times() {
        let (ran, waited) = (Duration::from_nanos(1500), Some(Duration::from_nanos(7)));
        assert_eq!(schedstat("1500 7 3\n"), Some(Times { ran, waited }));
        for text in ["", "0 0 0\n", "1500", "x 7 3", "-1 7 3"] {
            assert_eq!(schedstat(text), None, "{text}");
        }
        let second = ticks(procfs::ticks_per_second());
        assert_eq!(second, Times { ran: Duration::from_secs(1), waited: None });
    }

    #[test]
    fn waits() {
        assert_eq!(wchan("inet_csk_accept"), Some("inet_csk_accept".to_owned()));
        assert_eq!(wchan("0"), None);
        assert_eq!(wchan(""), None);
        let line = format!("{} 0x3 0x0 0x0 0x80000 0x0 0x0 0x7ffd 0x7f12\n", libc::SYS_accept4);
        let accept =
            Syscall { number: libc::SYS_accept4, name: Some("accept4"), first_argument: 3 };
        assert_eq!(syscall(&line), Some(accept));
        let other = Syscall { number: 9999, name: None, first_argument: 255 };
        assert_eq!(syscall("9999 0xff"), Some(other));
        for text in ["running", "-1 0x7ffd 0x7f12", "", "288", "288 3", "288 0xg"] {
            assert_eq!(syscall(text), None, "{text}");
        }
    }

    #[test]
    fn tracers() {
        assert_eq!(tracer("Name:\tx\nTracerPid:\t812\n"), Some(Pid(812)));
        assert_eq!(tracer("TracerPid:\t0\n"), None);
        assert_eq!(tracer("Name:\tx\n"), None);
    }
}
