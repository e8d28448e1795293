//! Bytes of files in `/proc/PID` → values.
//!
//! Pure and total: any bytes give a value or `None`.

use crate::model::{FdLimits, Limit, Pid};

/// What is needed of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) state: u8,
    pub(super) threads: u64,
    /// Clock ticks between boot and the process's start.
    pub(super) start_ticks: u64,
}

impl Stat {
    /// Whether the process still runs.
    ///
    /// A process whose first thread ended by itself shows that thread's state, zombie, for as
    /// long as the others run (fs/proc/array.c `do_task_stat`, kernel/exit.c).
    pub(super) const fn is_alive(self) -> bool {
        !self.is_zombie() || self.threads > 1
    }

    /// Whether its first thread has ended.
    pub(super) const fn is_zombie(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Reads `/proc/PID/stat`. The name in it may hold spaces, parentheses and anything but UTF-8.
pub(super) fn stat(bytes: &[u8]) -> Option<Stat> {
    // proc_pid_stat(5) counts from 1, and the state, which follows the name, is field 3.
    const STATE: usize = 3;
    const THREADS: usize = 20;
    const START: usize = 22;
    let name_end = bytes.iter().rposition(|byte| *byte == b')')?;
    let text = str::from_utf8(&bytes[name_end + 1..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let threads = fields.nth(THREADS - STATE - 1)?.parse().ok()?;
    let start_ticks = fields.nth(START - THREADS - 1)?.parse().ok()?;
    Some(Stat { state, threads, start_ticks })
}

/// Reads the line `Max open files` of `/proc/PID/limits`.
pub(super) fn fd_limits(text: &str) -> Option<FdLimits> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut fields = line.split_ascii_whitespace();
    Some(FdLimits { soft: limit(fields.next()?)?, hard: limit(fields.next()?)? })
}

fn limit(text: &str) -> Option<Limit> {
    match text {
        "unlimited" => Some(Limit::Unlimited),
        number => number.parse().ok().map(Limit::Of),
    }
}

/// Splits `/proc/PID/cmdline` into its first `most` arguments.
///
/// Programs that write a title over their arguments leave a run of NULs at the end. `None` where
/// there is no argument, as in kernel threads.
pub(super) fn arguments(bytes: &[u8], most: usize) -> Option<Vec<Vec<u8>>> {
    let end = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    Some(bytes[..end].split(|byte| *byte == 0).take(most).map(<[u8]>::to_vec).collect())
}

/// Reads the line `NSpid` of `/proc/PID/status`: its number in its own pid namespace, the innermost
/// of those it is in (fs/proc/array.c `task_state`).
pub(super) fn ns_pid(status: &str) -> Option<Pid> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().next_back()?.parse().ok().map(Pid)
}

/// The value of a variable in `/proc/PID/environ`. One that may be cut is not taken.
pub(super) fn variable<'a>(environ: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let whole = &environ[..=environ.iter().rposition(|byte| *byte == 0)?];
    let mut variables = whole.split(|byte| *byte == 0);
    variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Whether it can be the name of a host or pod: what RFC 1123 allows, in lower case.
pub(super) fn is_host_name(name: &str) -> bool {
    const MOST: usize = 253;
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    (1..=MOST).contains(&name.len()) && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_any_name() {
        let rest = b" S 1 812 812 0 -1 4194560 2043 0 0 0 11 7 0 0 20 0 4 0 88123 226131968 1";
        for name in [&b"nginx"[..], b"a) R (b", b"tmux: server", b"\xff\xfe\n)", b""] {
            let line = [b"812 (", name, b")", &rest[..]].concat();
            let expected = Stat { state: b'S', threads: 4, start_ticks: 88123 };
            assert_eq!(stat(&line), Some(expected), "{name:?}");
        }
    }

    #[test]
    fn stat_of_garbage() {
        for bytes in [&b""[..], b"812", b"812 (nginx)", b"812 (nginx) S 1 2", b") S \xff"] {
            assert_eq!(stat(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn alive() {
        let alive = |state, threads| Stat { state, threads, start_ticks: 0 }.is_alive();
        assert!(alive(b'S', 1));
        assert!(alive(b'D', 1));
        assert!(!alive(b'Z', 1));
        assert!(!alive(b'X', 0));
        assert!(alive(b'Z', 3), "only the first thread ended");
    }

    #[test]
    fn limits() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             127036               unlimited            processes \n\
                    Max open files            1024                 4096                 files     \n";
        let limits = FdLimits { soft: Limit::Of(1024), hard: Limit::Of(4096) };
        assert_eq!(fd_limits(text), Some(limits));
        assert_eq!(
            fd_limits("Max open files unlimited unlimited files"),
            Some(FdLimits { soft: Limit::Unlimited, hard: Limit::Unlimited })
        );
        for text in ["", "Max open files", "Max open files 1024", "Max open files x y files"] {
            assert_eq!(fd_limits(text), None, "{text}");
        }
    }

    #[test]
    fn arguments_of_all_kinds() {
        let split = |bytes| arguments(bytes, 3);
        let owned = |list: &[&[u8]]| Some(list.iter().map(|arg| arg.to_vec()).collect::<Vec<_>>());
        assert_eq!(split(b"nginx\0-g\0daemon off;\0"), owned(&[b"nginx", b"-g", b"daemon off;"]));
        assert_eq!(split(b"sh\0\0x\0"), owned(&[b"sh", b"", b"x"]));
        assert_eq!(split(b"nginx: worker\0\0\0\0"), owned(&[b"nginx: worker"]));
        assert_eq!(split(b"a\0b\0c\0d\0"), owned(&[b"a", b"b", b"c"]));
        assert_eq!(split(b"\xff\0"), owned(&[b"\xff"]));
        assert_eq!(split(b""), None);
        assert_eq!(split(b"\0\0"), None);
    }

    #[test]
    fn numbers_in_pid_namespaces() {
        let of = |line: &str| ns_pid(&format!("Name:\tx\nPid:\t14807\n{line}NSpgid:\t9\n"));
        assert_eq!(of("NSpid:\t14807\n"), Some(Pid(14807)));
        assert_eq!(of("NSpid:\t14807\t7\n"), Some(Pid(7)));
        assert_eq!(of("NSpid:\t14807\t120\t1\n"), Some(Pid(1)));
        // Before 4.1, without namespaces, and garbage.
        for line in ["", "NSpid:\n", "NSpid:\tx\n"] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn variables() {
        let environ = b"PATH=/bin\0HOSTNAME=web-0\0HOSTNAMES=x\0A=b=c\0EMPTY=\0CUT=of";
        let of = |name| variable(environ, name);
        assert_eq!(of("HOSTNAME"), Some(&b"web-0"[..]));
        assert_eq!(of("A"), Some(&b"b=c"[..]));
        assert_eq!(of("EMPTY"), Some(&b""[..]));
        assert_eq!((of("HOST"), of("CUT")), (None, None));
        assert_eq!(variable(b"", "A"), None);
    }

    #[test]
    fn host_names() {
        assert!(is_host_name("web-7d4b9c5f6d-x2x1z") && is_host_name("web.example"));
        for name in ["", "a b", "a\n", "A", "\x1b[31m", &"a".repeat(254)] {
            assert!(!is_host_name(name), "{name:?}");
        }
    }
}
