//! What a thread in D state waits for, as far as the kernel function it sleeps in tells.

use super::evidence::remedy;
use crate::model::{Pid, Remedy, When};

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// A disk or a file server.
    Storage,
    /// A child of vfork(2), to run its program or to end.
    Child,
    /// Nobody can tell.
    Unknown,
}

/// Where kernel/fork.c `wait_for_vfork_done` (v6.18) sleeps, which compilers put into its caller:
/// `kernel_clone` since 5.10, before it `_do_fork`.
const OF_VFORK: [&str; 4] = ["wait_for_vfork_done", "kernel_clone", "_do_fork", "do_fork"];

/// Beginnings of names: waiting for I/O, and file systems on disks or behind a network.
const OF_STORAGE: [&str; 28] = [
    "io_schedule",
    "bit_wait_io",
    "folio_wait",
    "wait_on_page",
    "__wait_on_buffer",
    "submit_bio_wait",
    "balance_dirty_pages",
    "rq_qos_wait",
    "wbt_wait",
    "blk_",
    "blkdev_",
    "dm_",
    "md_",
    "raid",
    "jbd2_",
    "wait_transaction_locked",
    "ext4_",
    "xfs_",
    "xlog_",
    "btrfs_",
    "f2fs_",
    "nfs",
    "rpc_",
    "cifs_",
    "ceph_",
    "fuse_",
    "request_wait_answer",
    "p9_",
];

impl Wait {
    pub(super) fn of(wchan: Option<&str>) -> Self {
        let Some(wchan) = wchan else { return Self::Unknown };
        // `folio_wait_bit_common.isra.0`
        let name = wchan.split('.').next().unwrap_or(wchan);
        if OF_VFORK.contains(&name) {
            Self::Child
        } else if OF_STORAGE.iter().any(|start| name.starts_with(start)) {
            Self::Storage
        } else {
            Self::Unknown
        }
    }

    /// `waits for …`
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Storage => "waits for a disk or a network file system",
            Self::Child => {
                "has started a child by vfork, and waits until that runs its program or ends"
            }
            Self::Unknown => "waits in the kernel for something, often a disk or a file server,",
        }
    }

    pub(super) fn remedy(self, pid: Pid) -> Remedy {
        match self {
            Self::Storage => remedy(
                When::ForGood,
                "find out which disk or file server does not answer; keep slow files off the \
                 thread that accepts",
                None,
            ),
            Self::Child => remedy(
                When::Now,
                "see what its child does, which has not run its program yet",
                Some(format!("ps -o pid,stat,wchan:32,args --ppid {pid}")),
            ),
            Self::Unknown => remedy(
                When::Now,
                "see as root in which kernel functions it waits",
                Some(format!("cat /proc/{pid}/stack")),
            ),
        }
    }

    /// What the function does not tell.
    pub(super) fn unknown(self) -> Option<String> {
        (self == Self::Unknown).then(|| "what it waits for".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_the_kernel_function() {
        for (wchan, expected) in [
            ("folio_wait_bit_common", Wait::Storage),
            ("folio_wait_bit_common.isra.0", Wait::Storage),
            ("rpc_wait_bit_killable", Wait::Storage),
            ("nfs4_proc_getattr", Wait::Storage),
            ("kernel_clone", Wait::Child),
            ("__mutex_lock.constprop.0", Wait::Unknown),
            ("rwsem_down_write_slowpath", Wait::Unknown),
            ("synchronize_rcu_expedited", Wait::Unknown),
        ] {
            assert_eq!(Wait::of(Some(wchan)), expected, "{wchan}");
        }
        assert_eq!(Wait::of(None), Wait::Unknown);
    }
}
