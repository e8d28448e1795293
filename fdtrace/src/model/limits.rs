//! How many file descriptors a process may have, and has.

use std::fmt;

use super::{Door, Errno};

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many.
    Of(u64),
    /// `RLIM_INFINITY`.
    Unlimited,
}

impl Limit {
    /// From the kernel's `rlim_t`.
    #[must_use]
    pub const fn from_rlim(value: u64) -> Self {
        if value == u64::MAX { Self::Unlimited } else { Self::Of(value) }
    }

    /// The number, where there is one.
    #[must_use]
    pub const fn number(self) -> Option<u64> {
        match self {
            Self::Of(number) => Some(number),
            Self::Unlimited => None,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(number) => write!(f, "{number}"),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// `RLIMIT_NOFILE` of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdLimits {
    /// The one that is enforced.
    pub soft: Limit,
    /// How far the process may raise the soft one itself.
    pub hard: Limit,
}

/// Use beside limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdUsage {
    /// Open descriptors; `None` where nobody could say.
    pub open: Option<u64>,
    /// The limits; `None` where nobody could say.
    pub limits: Option<FdLimits>,
}

impl FdUsage {
    /// Whether every descriptor below the soft limit is in use; `None` where unknown.
    #[must_use]
    pub fn is_at_limit(&self) -> Option<bool> {
        match (self.open?, self.limits?.soft) {
            (open, Limit::Of(soft)) => Some(open >= soft),
            (_, Limit::Unlimited) => Some(false),
        }
    }
}

/// The limit that a call met, as far as the kernel side saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// Descriptors: the number that the call was held against.
    Descriptors(u64),
    /// inotify instances of the user.
    InotifyInstances,
    /// Pages of the user's pipes.
    PipePages,
    /// The table of direct descriptors of an io_uring.
    IoUringTable,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// `RLIMIT_NOFILE` of the process, soft.
    NoFile(u64),
    /// `fs.nr_open`: no process can have more, whatever its limits are.
    NrOpen(u64),
    /// `fs.inotify.max_user_instances`; `None` where it could not be read.
    InotifyInstances(Option<u64>),
    /// `fs.pipe-user-pages-hard`; `None` where it could not be read.
    PipePages(Option<u64>),
    /// `fs.file-max`: file handles of the whole system.
    FileMax(u64),
    /// The table of direct descriptors of an io_uring.
    IoUringTable,
}

impl Ceiling {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoFile(_) => "nofile",
            Self::NrOpen(_) => "nr_open",
            Self::InotifyInstances(_) => "inotify_instances",
            Self::PipePages(_) => "pipe_pages",
            Self::FileMax(_) => "file_max",
            Self::IoUringTable => "io_uring_table",
        }
    }

    /// Its value, where that is known.
    #[must_use]
    pub const fn value(self) -> Option<u64> {
        match self {
            Self::NoFile(value) | Self::NrOpen(value) | Self::FileMax(value) => Some(value),
            Self::InotifyInstances(value) | Self::PipePages(value) => value,
            Self::IoUringTable => None,
        }
    }
}

/// File handles of the whole system: fs.file-nr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHandles {
    /// In use.
    pub used: u64,
    /// `fs.file-max`.
    pub max: u64,
}

/// Limits of the whole system; `None` where one could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemLimits {
    /// `fs.nr_open`.
    pub nr_open: Option<u64>,
    /// `fs.inotify.max_user_instances`.
    pub inotify_instances: Option<u64>,
    /// `fs.pipe-user-pages-hard`: pages of pipes of a user, 0 for no limit.
    pub pipe_pages: Option<u64>,
    /// `fs.file-nr`.
    pub handles: Option<FileHandles>,
}

impl SystemLimits {
    /// Which limit a failed call met. `None` where what is known does not decide it.
    #[must_use]
    pub fn ceiling(
        &self,
        door: Door,
        errno: Errno,
        met: Option<Met>,
        usage: &FdUsage,
    ) -> Option<Ceiling> {
        let soft = usage.limits.and_then(|limits| limits.soft.number());
        match (errno, met) {
            (_, Some(Met::InotifyInstances)) => {
                Some(Ceiling::InotifyInstances(self.inotify_instances))
            }
            (_, Some(Met::PipePages)) => Some(Ceiling::PipePages(self.pipe_pages)),
            (_, Some(Met::IoUringTable)) => Some(Ceiling::IoUringTable),
            (Errno::EMFILE, Some(Met::Descriptors(limit))) => Some(self.of_descriptors(limit)),
            (Errno::EMFILE, None) => self.met_by(door, usage, soft),
            (Errno::ENFILE, _) => {
                let FileHandles { used, max } = self.handles?;
                let is_pipe = matches!(door, Door::Call("pipe" | "pipe2"));
                match self.pipe_pages {
                    _ if used >= max => Some(Ceiling::FileMax(max)),
                    // Else there was no memory for a socket, which is rare.
                    _ if door == Door::IoUringAcceptDirect => Some(Ceiling::IoUringTable),
                    // The only other reason that a pipe has, but for memory (fs/pipe.c
                    // alloc_pipe_info, create_pipe_files, v6.18).
                    Some(most) if is_pipe && most > 0 => Some(Ceiling::PipePages(Some(most))),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Which limit a call met that says EMFILE and nothing else. Calls that do not only take a
    /// descriptor have limits of their own, with the same errno: where there are descriptors left,
    /// it was one of those.
    fn met_by(&self, door: Door, usage: &FdUsage, soft: Option<u64>) -> Option<Ceiling> {
        let descriptors = soft.map_or_else(
            || self.nr_open.map(Ceiling::NrOpen),
            |soft| Some(self.of_descriptors(soft)),
        );
        let Door::Call(call) = door else { return descriptors };
        let has_others =
            matches!(call, "inotify_init" | "inotify_init1" | "fanotify_init" | "mq_open");
        let has_room = match (usage.open, descriptors.and_then(Ceiling::value)) {
            (Some(open), Some(limit)) => open < limit,
            _ if has_others => return None,
            _ => false,
        };
        match call {
            _ if !has_room => descriptors,
            "inotify_init" | "inotify_init1" => {
                Some(Ceiling::InotifyInstances(self.inotify_instances))
            }
            _ if has_others => None,
            // A descriptor was closed since.
            _ => descriptors,
        }
    }

    /// A process's limit counts as far as `fs.nr_open` (fs/file.c expand_files, v6.18).
    fn of_descriptors(&self, limit: u64) -> Ceiling {
        match self.nr_open {
            Some(nr_open) if limit > nr_open => Ceiling::NrOpen(nr_open),
            Some(_) | None => Ceiling::NoFile(limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_was_met_is_told_from_the_others() {
        let host = SystemLimits {
            nr_open: Some(1000),
            inotify_instances: Some(128),
            pipe_pages: Some(64),
            handles: Some(FileHandles { used: 500, max: 500 }),
        };
        let usage = |open, soft| FdUsage {
            open,
            limits: Some(FdLimits { soft: Limit::Of(soft), hard: Limit::Unlimited }),
        };
        let (process, system) = (Errno::EMFILE, Errno::ENFILE);
        let inotify = Door::Call("inotify_init1");
        let full = usage(Some(64), 64);
        let met = |door, errno, met, usage| host.ceiling(door, errno, met, &usage);
        assert_eq!(met(Door::Accept4, process, None, full), Some(Ceiling::NoFile(64)));
        assert_eq!(
            met(Door::Accept4, process, None, usage(Some(1000), 4096)),
            Some(Ceiling::NrOpen(1000))
        );
        // An accept of io_uring has the limit of when it was submitted.
        let frozen = Some(Met::Descriptors(32));
        assert_eq!(met(Door::IoUringAccept, process, frozen, full), Some(Ceiling::NoFile(32)));
        assert_eq!(met(inotify, process, None, full), Some(Ceiling::NoFile(64)));
        let instances = Some(Ceiling::InotifyInstances(Some(128)));
        assert_eq!(met(inotify, process, None, usage(Some(9), 64)), instances);
        assert_eq!(met(inotify, process, None, usage(None, 64)), None);
        let fanotify = Door::Call("fanotify_init");
        assert_eq!(met(fanotify, process, None, usage(Some(9), 64)), None);
        assert_eq!(met(fanotify, process, None, full), Some(Ceiling::NoFile(64)));
        let pipe = met(Door::Call("pipe2"), process, None, usage(Some(9), 64));
        assert_eq!(pipe, Some(Ceiling::NoFile(64)));
        assert_eq!(met(inotify, process, Some(Met::InotifyInstances), full), instances);
        assert_eq!(met(Door::Accept, system, None, full), Some(Ceiling::FileMax(500)));
        // The file comes first, then its place in the table.
        let direct = Door::IoUringAcceptDirect;
        assert_eq!(met(direct, system, None, full), Some(Ceiling::FileMax(500)));
        let slot = met(Door::IoUring, system, Some(Met::IoUringTable), full);
        assert_eq!(slot, Some(Ceiling::IoUringTable));
        let roomy = SystemLimits { handles: Some(FileHandles { used: 1, max: 500 }), ..host };
        assert_eq!(roomy.ceiling(Door::Accept, system, None, &full), None);
        assert_eq!(roomy.ceiling(direct, system, None, &full), Some(Ceiling::IoUringTable));
        let unread = SystemLimits { handles: None, ..host };
        assert_eq!(unread.ceiling(direct, system, None, &full), None);
        let pipe = Door::Call("pipe2");
        let pages = Some(Ceiling::PipePages(Some(64)));
        assert_eq!(roomy.ceiling(pipe, system, None, &full), pages);
        let without = SystemLimits { pipe_pages: Some(0), ..roomy };
        assert_eq!(without.ceiling(pipe, system, None, &full), None);
        assert_eq!(without.ceiling(pipe, system, Some(Met::PipePages), &full), {
            Some(Ceiling::PipePages(Some(0)))
        });
        assert_eq!(met(Door::Accept, Errno::ENOMEM, None, full), None);
    }
}
