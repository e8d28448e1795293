//! bpf(2) itself: what is measured must not be a library.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::Result;
use nix::{errno::Errno, libc};

// linux/bpf.h
pub(super) const BPF_PROG_LOAD: libc::c_long = 5;
pub(super) const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
pub(super) const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
pub(super) const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
pub(super) const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
pub(super) const BPF_LINK_CREATE: libc::c_long = 28;
pub(super) const BPF_ENABLE_STATS: libc::c_long = 32;
pub(super) const PROG_TYPE_KPROBE: u32 = 2;
pub(super) const PROG_TYPE_TRACEPOINT: u32 = 5;
pub(super) const PROG_TYPE_CGROUP_SKB: u32 = 8;
pub(super) const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
pub(super) const PROG_TYPE_TRACING: u32 = 26;

/// What the call returned: of most commands, a descriptor.
pub(super) fn bpf(command: libc::c_long, attr: &mut [u64]) -> nix::Result<libc::c_long> {
    let size = size_of_val(attr);
    // SAFETY: the kernel reads and writes the attributes, and what they point to, during the call
    // only.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size) })
}

/// The descriptor that a system call returned, or its error.
pub(super) fn owned(fd: libc::c_long) -> Result<OwnedFd> {
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just given us the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}

/// A descriptor, as attributes have it.
pub(super) fn number(fd: &OwnedFd) -> Result<u64> {
    Ok(u64::try_from(fd.as_raw_fd())?)
}
