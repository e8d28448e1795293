//! Facts about the host: what can be attached, and why not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use fdtrace_common::Host;

use super::{
    HostError,
    btf::Btf,
    descriptors,
    probes::{Absence, Function, OLD_ALLOC_FD, PROBES, Point, Step},
    records::Buffer,
    tracefs,
};

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// What the kernel forbids to root too.
pub(super) const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
/// Where the kernel shows its own BTF: without it no program can be attached to a function by type.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
/// Where perf events on kprobes can be opened.
const KPROBE_EVENTS: &str = "/sys/bus/event_source/devices/kprobe/type";

/// What the host has. What it allows is known by trying: what was refused is told by
/// [`Self::learn`].
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(super) struct Support {
    /// Functions by name, with the number of their arguments.
    pub(super) functions: BTreeMap<&'static str, u32>,
    /// Typed tracepoints by name, with the number of their arguments.
    pub(super) typed_tracepoints: BTreeMap<&'static str, u32>,
    /// System calls whose exit has a tracepoint.
    pub(super) sys_exits: BTreeSet<&'static str>,
    /// Why tracefs cannot be used.
    pub(super) no_tracefs: Option<String>,
    /// Why packets cannot be seen; otherwise where the root of cgroup v2 is.
    pub(super) cgroup: Option<PathBuf>,
    /// Whether the kernel knows its own types.
    pub(super) has_kernel_btf: bool,
    /// Whether it has kprobes as perf events.
    pub(super) has_kprobes: bool,
    /// Whether it has IPv6.
    pub(super) has_ipv6: bool,
    /// Whether it has bpf_get_func_ret(), which tells a pointer that a function returned.
    pub(super) has_func_ret: bool,
    /// Whether it has bpf_probe_read_kernel() (5.5).
    pub(super) has_probe_read_kernel: bool,
    /// Whether it has ring buffers (5.8).
    pub(super) has_ring_buffer: bool,
    /// Whether programs can read CLOCK_BOOTTIME (5.8).
    pub(super) has_boot_clock: bool,
    /// Whether they can iterate over the descriptors of one process (6.1).
    pub(super) has_descriptors: bool,
    against: Vec<Against>,
}

/// What stands against an attach point, found by trying.
#[derive(Clone, Debug)]
pub(super) struct Against {
    scope: Scope,
    pub(super) why: String,
    pub(super) is_forbidden: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// This point.
    Point(Point),
    /// Every point of that mechanism.
    Mechanism(Mechanism),
}

/// How a point is attached to; what is refused to one point of a mechanism is refused to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mechanism {
    Trampoline,
    Kprobe,
    Tracepoint,
    TypedTracepoint,
    Packets,
}

impl Mechanism {
    const fn of(point: Point) -> Self {
        match point {
            Point::Fentry(_) | Point::Fexit(_) => Self::Trampoline,
            Point::Kprobe(_) | Point::Kretprobe(_) => Self::Kprobe,
            Point::SysExit(_) => Self::Tracepoint,
            Point::TpBtf(_) => Self::TypedTracepoint,
            Point::Packets(_) => Self::Packets,
        }
    }
}

impl Support {
    /// Looks at the host; tries nothing yet.
    pub(super) fn look(btf: &Btf<'_>) -> Self {
        let no_tracefs = tracefs::ensure().err().map(|error| error.to_string());
        let points = || PROBES.iter().flat_map(|probe| probe.forms).flat_map(|form| form.steps);
        let points = || points().map(|step| step.point);
        let functions = points().filter_map(Point::function).chain([OLD_ALLOC_FD]);
        Self {
            functions: functions
                .filter_map(|function| Some((function.name, btf.arguments(function.name)?)))
                .collect(),
            typed_tracepoints: points()
                .filter_map(|point| match point {
                    Point::TpBtf(name) => Some((name, btf.tracepoint_arguments(name)?)),
                    _ => None,
                })
                .collect(),
            sys_exits: points()
                .filter_map(|point| match point {
                    Point::SysExit(call) => Some(call),
                    _ => None,
                })
                .filter(|call| no_tracefs.is_none() && tracefs::has_sys_exit(call))
                .collect(),
            no_tracefs,
            cgroup: cgroup_root(Path::new("/proc/self/mounts")),
            has_kernel_btf: Path::new(KERNEL_BTF).exists(),
            has_kprobes: Path::new(KPROBE_EVENTS).exists(),
            has_ipv6: Path::new("/proc/sys/net/ipv6").exists(),
            has_func_ret: has_helper(btf, "get_func_ret"),
            has_probe_read_kernel: has_helper(btf, "probe_read_kernel"),
            has_ring_buffer: btf.has_enumerator("bpf_map_type", "BPF_MAP_TYPE_RINGBUF"),
            has_boot_clock: has_helper(btf, "ktime_get_boot_ns"),
            has_descriptors: btf.arguments(descriptors::ITERATED).is_some()
                && btf.offset(descriptors::OF_ONE).is_some(),
            against: Vec::new(),
        }
    }

    /// Takes note of a point that could not be attached to.
    pub(super) fn learn(&mut self, point: Point, why: String, is_forbidden: bool) {
        // What is forbidden at one point is at all: a policy knows no functions.
        let mechanism = Mechanism::of(point);
        let scope = if is_forbidden { Scope::Mechanism(mechanism) } else { Scope::Point(point) };
        self.against.push(Against { scope, why, is_forbidden });
    }

    /// What was found to stand against a point.
    pub(super) fn against(&self, point: Point) -> Option<&Against> {
        let mechanism = Scope::Mechanism(Mechanism::of(point));
        self.against
            .iter()
            .find(|against| against.scope == mechanism || against.scope == Scope::Point(point))
    }

    /// Why the host has no such point.
    pub(super) fn missing(&self, point: Point) -> Option<String> {
        match point {
            Point::Fentry(_) | Point::Fexit(_) | Point::TpBtf(_) if !self.has_kernel_btf => {
                Some(format!("the kernel has no {KERNEL_BTF} (CONFIG_DEBUG_INFO_BTF)"))
            }
            Point::Kprobe(_) | Point::Kretprobe(_) if !self.has_kprobes => {
                Some("the kernel has no kprobes (CONFIG_KPROBE_EVENTS)".to_owned())
            }
            Point::Fexit(function) if returns_a_pointer(function) && !self.has_func_ret => {
                let name = function.name;
                Some(format!(
                    "{name} returns a pointer, and bpf_get_func_ret() is not there (5.17)"
                ))
            }
            Point::Fentry(function)
            | Point::Fexit(function)
            | Point::Kprobe(function)
            | Point::Kretprobe(function) => self.missing_function(function),
            Point::SysExit(call) => match &self.no_tracefs {
                Some(why) => Some(why.clone()),
                None if self.sys_exits.contains(call) => None,
                None => {
                    Some(format!("no tracepoint syscalls:sys_exit_{call} (CONFIG_FTRACE_SYSCALLS)"))
                }
            },
            Point::TpBtf(name) => match self.typed_tracepoints.get(name) {
                Some(3 | 7) => None,
                Some(arguments) => Some(format!(
                    "the tracepoint {name} has {arguments} arguments; 3 and 7 are known"
                )),
                None => Some(format!("the kernel has no tracepoint {name}")),
            },
            Point::Packets(_) if self.cgroup.is_none() => Some(NO_CGROUP.to_owned()),
            Point::Packets(_) => None,
        }
    }

    fn missing_function(&self, function: Function) -> Option<String> {
        let (least, most) = function.arguments;
        let name = function.name;
        match self.functions.get(name) {
            Some(arguments) if (least..=most).contains(arguments) => None,
            Some(arguments) => {
                Some(format!("{name}() takes {arguments} arguments here; {least} are known"))
            }
            None => Some(format!(
                "the kernel has no function {name}() to attach to (absent, in a module, or compiled \
                 into its callers)"
            )),
        }
    }

    /// Whether nothing is missed where a step's point is missing.
    pub(super) const fn may_lack(&self, step: Step) -> bool {
        match step.absence {
            Absence::Matters => false,
            Absence::IsFine => true,
            Absence::IsFineWithoutIpv6 => !self.has_ipv6,
        }
    }

    /// The same step under the name that this kernel has for its function.
    pub(super) fn resolve(&self, step: Step) -> Step {
        let is_old = |function: Function| {
            function.name == "alloc_fd"
                && !self.functions.contains_key("alloc_fd")
                && self.functions.contains_key(OLD_ALLOC_FD.name)
        };
        let point = match step.point {
            Point::Kprobe(function) if is_old(function) => Point::Kprobe(OLD_ALLOC_FD),
            Point::Kretprobe(function) if is_old(function) => Point::Kretprobe(OLD_ALLOC_FD),
            point => point,
        };
        Step { point, ..step }
    }

    /// What the programs branch on. With a perf buffer they do without anything that kernels which
    /// need one lack.
    pub(super) fn host(&self, btf: &Btf<'_>, buffer: Buffer) -> Host {
        /// THREAD_SIZE of x86-64 and of arm64 with pages of 4 KiB or 16 KiB.
        const STACK_SIZE: u32 = 16 << 10;
        Host {
            has_typed_task: has_helper(btf, "get_current_task_btf").into(),
            has_task_regs: has_helper(btf, "task_pt_regs").into(),
            stack_size: STACK_SIZE,
            uring_complete_arguments: self
                .typed_tracepoints
                .get("io_uring_complete")
                .copied()
                .unwrap_or(0),
            allocator_takes_table: (!self.functions.contains_key("alloc_fd")).into(),
            pid_ns_inum: pid_namespace(Path::new("/proc")),
            has_ring_buffer: (buffer == Buffer::Ring).into(),
            has_boot_clock: (buffer == Buffer::Ring && self.has_boot_clock).into(),
        }
    }

    /// Names of types that [`Self::look`] and [`Self::host`] look for.
    pub(super) fn wanted_types() -> Vec<String> {
        let points = PROBES.iter().flat_map(|probe| probe.forms).flat_map(|form| form.steps);
        let names = points.filter_map(|step| match step.point {
            Point::TpBtf(name) => Some(format!("btf_trace_{name}")),
            point => point.function().map(|function| function.name.to_owned()),
        });
        let iterator = [descriptors::ITERATED, descriptors::OF_ONE.split('.').next().unwrap_or("")];
        let others = [OLD_ALLOC_FD.name, "bpf_func_id", "bpf_map_type"].into_iter().chain(iterator);
        names.chain(others.map(str::to_owned)).collect()
    }
}

/// Whether a program must ask a helper what the function returned.
fn returns_a_pointer(function: Function) -> bool {
    function.name == "alloc_empty_file"
}

fn has_helper(btf: &Btf<'_>, name: &str) -> bool {
    btf.has_enumerator("bpf_func_id", &format!("BPF_FUNC_{name}"))
}

/// Inode number of our pid namespace; 0 in the initial one, whose inode number is fixed
/// (include/linux/proc_ns.h `PROC_PID_INIT_INO`).
fn pid_namespace(proc: &Path) -> u32 {
    const INITIAL: u32 = 0xefff_fffc;
    let inum = |link: PathBuf| {
        link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse::<u32>().ok()
    };
    fs::read_link(proc.join("self/ns/pid"))
        .ok()
        .and_then(inum)
        .filter(|ns| *ns != INITIAL)
        .unwrap_or(0)
}

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

pub(super) fn may_trace(effective: u64) -> bool {
    let has = |cap: u32| effective >> cap & 1 == 1;
    has(CAP_SYS_ADMIN) || (has(CAP_BPF) && has(CAP_PERFMON))
}

pub(super) fn effective_capabilities(status: &str) -> Option<u64> {
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

const NO_CGROUP: &str =
    "cgroup v2 is not mounted. Mount it with: mount -t cgroup2 none /sys/fs/cgroup/unified";

/// Where cgroup v2 is mounted.
fn cgroup_root(mounts: &Path) -> Option<PathBuf> {
    cgroup_mount(&fs::read_to_string(mounts).unwrap_or_default())
}

pub(super) fn cgroup_mount(mounts: &str) -> Option<PathBuf> {
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

/// What a refusal to a process that has the capabilities can mean.
pub(super) fn forbidden() -> String {
    let lockdown = fs::read_to_string(LOCKDOWN).map_or_else(
        |_| "unknown (securityfs is not mounted)".to_owned(),
        |text| text.trim().to_owned(),
    );
    let paranoid = fs::read_to_string(PARANOID).ok().and_then(|text| text.trim().parse().ok());
    // Debian's patch of kernel/events/core.c perf_event_open(), measured on its 6.12.
    let perf_events = paranoid.filter(|level: &i32| *level > 2).map_or_else(String::new, |level| {
        format!(
            "kernel.perf_event_paranoid (here: {level}; above 2 some distributions' kernels allow perf \
             events, which the forms tracepoint and kprobe attach by, to CAP_SYS_ADMIN alone), "
        )
    });
    format!(
        "The kernel refused what it allows to a process with these capabilities (EPERM). Usual \
         reasons: a container's seccomp filter (run on the host, or allow bpf(2) and perf_event_open(2)), \
         lockdown (here: {lockdown}), {perf_events}or a security module. Look in: dmesg, journalctl -k"
    )
}

#[cfg(test)]
impl Support {
    /// A host that has everything and forbids nothing.
    pub(super) fn capable() -> Self {
        let points = PROBES.iter().flat_map(|probe| probe.forms).flat_map(|form| form.steps);
        let points: Vec<_> = points.map(|step| step.point).collect();
        let functions = points.iter().filter_map(|point| point.function());
        let sys_exits = points.iter().filter_map(|point| match point {
            Point::SysExit(call) => Some(*call),
            _ => None,
        });
        Self {
            functions: functions.map(|function| (function.name, function.arguments.1)).collect(),
            typed_tracepoints: BTreeMap::from([("io_uring_complete", 7)]),
            sys_exits: sys_exits.collect(),
            no_tracefs: None,
            cgroup: Some(PathBuf::from("/sys/fs/cgroup")),
            has_kernel_btf: true,
            has_kprobes: true,
            has_ipv6: true,
            has_func_ret: true,
            has_probe_read_kernel: true,
            has_ring_buffer: true,
            has_boot_clock: true,
            has_descriptors: true,
            against: Vec::new(),
        }
    }
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
