//! Facts about the host, asked before anything is loaded, so that a refusal can be explained.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use super::HostError;

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Fails where this process may not load programs.
pub(super) fn check_capabilities(status: &Path) -> Result<(), HostError> {
    // Unreadable is not "missing": bpf(2) will say.
    let Ok(text) = fs::read_to_string(status) else { return Ok(()) };
    match effective_capabilities(&text) {
        Some(caps) if !may_trace(caps) => Err(HostError::NotPermitted(
            "loading eBPF programs needs root (CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN). Run: \
             sudo fdtrace"
                .to_owned(),
        )),
        Some(_) | None => Ok(()),
    }
}

fn may_trace(effective: u64) -> bool {
    let has = |cap: u32| effective >> cap & 1 == 1;
    has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON))
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Fails where the kernel forbids programs to read its memory, to root too.
pub(super) fn check_lockdown(lockdown: &Path) -> Result<(), HostError> {
    match fs::read_to_string(lockdown) {
        Ok(text) if text.contains("[confidentiality]") => Err(HostError::Unsupported(
            "the kernel is in lockdown=confidentiality (/sys/kernel/security/lockdown): no eBPF \
             program may read kernel memory, so no tracer can work. Boot with \
             lockdown=integrity or without lockdown"
                .to_owned(),
        )),
        // securityfs not mounted, or no lockdown in this kernel.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Where cgroup v2 is mounted.
pub(super) fn cgroup_root(mounts: &Path) -> Result<PathBuf, HostError> {
    let text = fs::read_to_string(mounts).unwrap_or_default();
    cgroup_mount(&text).ok_or_else(|| {
        HostError::Unsupported(
            "cgroup v2 is not mounted. Mount it with: mount -t cgroup2 none /sys/fs/cgroup/unified"
                .to_owned(),
        )
    })
}

fn cgroup_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        // The kernel writes blanks in paths as octal escapes; nobody mounts cgroups at such.
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    })
}

/// Reads the kernel's BTF.
pub(super) fn read_btf(path: &Path) -> Result<Vec<u8>, HostError> {
    fs::read(path).map_err(|error| {
        let shown = path.display();
        HostError::Unsupported(match error.kind() {
            ErrorKind::NotFound => format!(
                "no BTF at {shown}: fdtrace needs it to find fields in kernel structures. Use a \
                 kernel with CONFIG_DEBUG_INFO_BTF=y (RHEL 8.2+, Debian 11+, Ubuntu 20.10+ have \
                 it), or give the BTF of exactly this kernel with --btf FILE"
            ),
            _ => format!("cannot read the kernel's BTF at {shown}: {error}"),
        })
    })
}

/// What bpf(2) refusing to a process that has the capabilities can mean.
pub(super) fn bpf_refused(step: &str, lockdown: &Path) -> HostError {
    let lockdown = fs::read_to_string(lockdown).map_or_else(
        |_| "unknown (securityfs is not mounted)".to_owned(),
        |text| text.trim().to_owned(),
    );
    HostError::Unsupported(format!(
        "the kernel refused {step} to a process that has the capabilities (EPERM). Usual reasons: \
         a container's seccomp filter (run on the host, or allow bpf(2) and perf_event_open(2)), \
         lockdown (here: {lockdown}), or a security module. Look in: dmesg, journalctl -k"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_is_found_beside_v1() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup_mount(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let only_v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";
        assert_eq!(cgroup_mount(only_v1), None);
    }

    #[test]
    fn either_the_two_capabilities_or_the_old_one() {
        let status = "Name:\tx\nCapInh:\t0\nCapEff:\t000001ffffffffff\n";
        assert!(may_trace(effective_capabilities(status).unwrap()));
        assert!(may_trace(1 << CAP_SYS_ADMIN));
        assert!(may_trace(1 << CAP_BPF | 1 << CAP_PERFMON));
        assert!(!may_trace(1 << CAP_BPF));
        assert!(!may_trace(1 << CAP_PERFMON));
        assert!(!may_trace(0));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }
}
