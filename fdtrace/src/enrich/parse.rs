//! Bytes of files in `/proc/PID` → values.
//!
//! Pure and total: any bytes give a value or `None`.

use crate::model::{FdLimits, Limit};

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
}
