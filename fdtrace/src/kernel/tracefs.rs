//! Finding tracefs, which knows the numbers of tracepoints.

use std::{ffi::CStr, fs, io, path::Path};

use super::HostError;

/// Where tracefs is mounted by custom.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Sees to it that this process sees a tracefs.
///
/// Where the host has none mounted, it is mounted in a mount namespace of our own, which ends with
/// us: the host is not changed. Must run before other threads exist, for they would keep the old
/// namespace.
pub(super) fn ensure() -> Result<(), HostError> {
    if PLACES.iter().any(|place| Path::new(place).join("events/syscalls").is_dir()) {
        return Ok(());
    }
    if !Path::new(PLACES[0]).is_dir() {
        return Err(HostError::Unsupported(
            "this kernel has no tracefs (no /sys/kernel/tracing): it was built without \
             CONFIG_FTRACE, or /sys is not mounted. Mount sysfs on /sys, or use a kernel with \
             CONFIG_FTRACE_SYSCALLS=y"
                .to_owned(),
        ));
    }
    if let Some(place) = PLACES.iter().find(|place| is_refused(place)) {
        return Err(HostError::Unsupported(format!(
            "tracefs at {place} is not to be searched by this user: that takes CAP_DAC_READ_SEARCH, \
             or root"
        )));
    }
    mount_privately().map_err(|error| {
        HostError::Unsupported(format!(
            "tracefs is not mounted, and mounting it for fdtrace alone failed: {error}. Mount it \
             with: mount -t tracefs nodev /sys/kernel/tracing"
        ))
    })?;
    if !Path::new(PLACES[0]).join("events/syscalls").is_dir() {
        return Err(HostError::Unsupported(
            "tracefs has no events/syscalls: this kernel was built without CONFIG_FTRACE_SYSCALLS"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Whether something is there that only others may see.
fn is_refused(place: &str) -> bool {
    let error = fs::metadata(Path::new(place).join("events/syscalls")).err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn mount_privately() -> io::Result<()> {
    // SAFETY: only flags are passed; this process has one thread yet.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Mounts of the host still reach us; ours do not reach the host.
    mount(c"none", c"/", None, libc::MS_REC | libc::MS_SLAVE)?;
    mount(c"fdtrace", c"/sys/kernel/tracing", Some(c"tracefs"), 0)
}

fn mount(
    source: &CStr,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
) -> io::Result<()> {
    let kind = kind.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the strings are NUL-terminated and outlive the call; the data argument may be null.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the exit of a system call has a tracepoint.
pub(super) fn has_sys_exit(call: &str) -> bool {
    let event = format!("events/syscalls/sys_exit_{call}/id");
    PLACES.iter().any(|place| fs::exists(Path::new(place).join(&event)).unwrap_or(false))
}
