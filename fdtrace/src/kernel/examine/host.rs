//! What the host says of itself in /proc and /sys. Nothing here is judged.

use std::{
    fs,
    io::{self, ErrorKind, Read as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use crate::kernel::{
    records::Buffer,
    support::{cgroup_mount, effective_capabilities},
};

/// More of a file in /proc or /sys is not read.
const MOST_BYTES: u64 = 1 << 20;

/// Numbers of the initial namespaces (include/linux/proc_ns.h, v6.12).
const INITIAL_PID: u32 = 0xefff_fffc;
const INITIAL_CGROUP: u32 = 0xefff_fffb;

/// What was read; `None` and `Err` are unknown.
#[derive(Clone, Debug)]
pub(super) struct HostFacts {
    /// `uname -r`
    pub(super) kernel: String,
    /// Where the BTF is said to be, and its size in bytes, or why it cannot be read.
    pub(super) btf: (PathBuf, Result<u64, String>),
    /// What carries records, or why nothing can. It stands in BTF, so whoever looked there sets it.
    pub(super) buffer: Option<Result<Buffer, String>>,
    /// The first place where tracefs is mounted.
    pub(super) tracefs: Option<PathBuf>,
    /// Whether it could be mounted.
    pub(super) has_tracefs: bool,
    /// Where cgroup v2 is mounted.
    pub(super) cgroup: Option<PathBuf>,
    /// Whether the kernel has kprobes as perf events.
    pub(super) has_kprobes: bool,
    /// What the kernel forbids to root too.
    pub(super) lockdown: Result<String, String>,
    /// Security modules that are active.
    pub(super) security_modules: Result<String, String>,
    /// Effective capabilities of this process.
    pub(super) capabilities: Option<u64>,
    /// Whether a seccomp filter is on this process.
    pub(super) is_filtered: Option<bool>,
    /// Whether this process is in the initial pid namespace.
    pub(super) is_in_initial_pid_ns: Option<bool>,
    /// Whether it is in the initial cgroup namespace.
    pub(super) is_in_initial_cgroup_ns: Option<bool>,
    /// Whether programs run as machine code.
    pub(super) is_jit_on: Option<bool>,
    /// Whether 32-bit programs run on this 64-bit kernel. `None` where nothing tells.
    pub(super) runs_32_bit: Option<bool>,
}

impl HostFacts {
    /// Reads them below `root`. `btf` is a path of its own, `securityfs` is for where it is not
    /// mounted.
    pub(super) fn read(root: &Path, btf: &Path, securityfs: Option<&OwnedFd>) -> Self {
        let text = |path: &str| read_text(&root.join(path));
        let status = text("proc/self/status").unwrap_or_default();
        let mounts = text("proc/self/mounts").unwrap_or_default();
        let security = |file: &str| {
            text(&format!("sys/kernel/security/{file}")).or_else(|error| match securityfs {
                Some(directory) => read_at(directory, file).map_err(|error| security_error(&error)),
                None => Err(security_error(&error)),
            })
        };
        let is_x86_64 = cfg!(target_arch = "x86_64");
        Self {
            kernel: text("proc/sys/kernel/osrelease").unwrap_or_else(|_| "unknown".to_owned()),
            btf: (btf.to_owned(), size(btf).map_err(|error| error.to_string())),
            buffer: None,
            tracefs: mount_of("tracefs", &mounts),
            has_tracefs: root.join("sys/kernel/tracing").is_dir(),
            cgroup: cgroup_mount(&mounts),
            has_kprobes: root.join("sys/bus/event_source/devices/kprobe/type").exists(),
            lockdown: security("lockdown"),
            security_modules: security("lsm"),
            capabilities: effective_capabilities(&status),
            is_filtered: seccomp_filter(&status),
            is_in_initial_pid_ns: is_namespace(&root.join("proc/self/ns/pid"), INITIAL_PID),
            is_in_initial_cgroup_ns: is_namespace(
                &root.join("proc/self/ns/cgroup"),
                INITIAL_CGROUP,
            ),
            is_jit_on: text("proc/sys/net/core/bpf_jit_enable").ok().map(|value| value != "0"),
            // Registered with CONFIG_X86_32 or CONFIG_IA32_EMULATION only
            // (arch/x86/entry/vdso/vdso32-setup.c, v6.12).
            runs_32_bit: is_x86_64.then(|| root.join("proc/sys/abi/vsyscall32").exists()),
        }
    }
}

/// A securityfs that is mounted nowhere, for where the host has not mounted it: then nothing else
/// tells of lockdown and security modules. It ends with its descriptor (fsmount(2), since 5.2).
pub(super) fn mount_securityfs() -> Option<OwnedFd> {
    if Path::new("/sys/kernel/security/lsm").exists() {
        return None;
    }
    let context = fsopen("securityfs", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    fsconfig_create(&context).ok()?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).ok()
}

fn read_text(path: &Path) -> io::Result<String> {
    trimmed(fs::File::open(path)?)
}

fn read_at(directory: &OwnedFd, file: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    trimmed(fs::File::from(openat(directory, file, flags, Mode::empty())?))
}

fn trimmed(file: fs::File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The size of a file, if it can be read.
fn size(path: &Path) -> io::Result<u64> {
    Ok(fs::File::open(path)?.metadata()?.len())
}

fn security_error(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "securityfs is not mounted".to_owned(),
        _ => error.to_string(),
    }
}

/// Where a file system is mounted, in the kernel's table of mounts.
fn mount_of(kind: &str, mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == kind).then(|| PathBuf::from(place))
    })
}

fn seccomp_filter(status: &str) -> Option<bool> {
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?;
    Some(mode.trim() != "0")
}

/// Whether a link in /proc/self/ns leads to the namespace of that number.
fn is_namespace(link: &Path, number: u32) -> Option<bool> {
    let target = fs::read_link(link).ok()?;
    let (_, rest) = target.to_str()?.split_once('[')?;
    Some(rest.strip_suffix(']')?.parse::<u32>().ok()? == number)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A host with these files and links below its root.
    fn host(files: &[(&str, &str)], links: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        for (path, target) in links {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
        }
        root
    }

    #[test]
    fn what_is_there_is_read() {
        let root = host(
            &[
                ("proc/sys/kernel/osrelease", "6.12.1\n"),
                (
                    "proc/self/status",
                    "Name:\tx\nCapEff:\t000001ffffffffff\nSeccomp:\t2\nSeccomp_filters:\t1\n",
                ),
                (
                    "proc/self/mounts",
                    "tracefs /sys/kernel/tracing tracefs rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw \
                     0 0\n",
                ),
                ("proc/sys/net/core/bpf_jit_enable", "1\n"),
                ("proc/sys/abi/vsyscall32", "1\n"),
                ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
                ("sys/kernel/security/lsm", "capability,lockdown,apparmor"),
                ("sys/bus/event_source/devices/kprobe/type", "8\n"),
                ("btf", "12345"),
            ],
            &[
                ("proc/self/ns/pid", "pid:[4026531836]"),
                ("proc/self/ns/cgroup", "cgroup:[4026532]"),
            ],
        );
        let facts = HostFacts::read(root.path(), &root.path().join("btf"), None);
        assert_eq!(facts.kernel, "6.12.1");
        assert_eq!(facts.btf.1, Ok(5));
        assert_eq!(facts.tracefs, Some(PathBuf::from("/sys/kernel/tracing")));
        assert_eq!(facts.cgroup, Some(PathBuf::from("/sys/fs/cgroup")));
        assert!(facts.has_kprobes);
        assert_eq!(facts.lockdown.as_deref(), Ok("none [integrity] confidentiality"));
        assert_eq!(facts.security_modules.as_deref(), Ok("capability,lockdown,apparmor"));
        assert_eq!(facts.capabilities, Some(0x1ff_ffff_ffff));
        assert_eq!(facts.is_filtered, Some(true));
        assert_eq!(facts.is_in_initial_pid_ns, Some(true));
        assert_eq!(facts.is_in_initial_cgroup_ns, Some(false));
        assert_eq!(facts.is_jit_on, Some(true));
        assert_eq!(facts.runs_32_bit, cfg!(target_arch = "x86_64").then_some(true));
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        let root = host(&[], &[]);
        let facts = HostFacts::read(root.path(), &root.path().join("btf"), None);
        assert_eq!(facts.kernel, "unknown");
        assert!(facts.btf.1.unwrap_err().contains("No such file"));
        assert_eq!((facts.tracefs, facts.cgroup), (None, None));
        assert!(!facts.has_kprobes && !facts.has_tracefs);
        assert_eq!(facts.lockdown, Err("securityfs is not mounted".to_owned()));
        assert_eq!((facts.capabilities, facts.is_filtered), (None, None));
        assert_eq!((facts.is_in_initial_pid_ns, facts.is_jit_on), (None, None));
    }

    /// The real thing.
    #[test]
    fn this_host() {
        let facts = HostFacts::read(Path::new("/"), Path::new("/sys/kernel/btf/vmlinux"), None);
        assert!(facts.kernel.starts_with(|first: char| first.is_ascii_digit()), "{facts:?}");
        assert!(facts.capabilities.is_some() && facts.is_in_initial_pid_ns.is_some(), "{facts:?}");
    }
}
