//! What follows from what the host is like: a pure function.

use std::path::Path;

use super::{
    capabilities::{CAP_SYS_ADMIN, Capability, held, missing},
    host::HostFacts,
};
use crate::{
    kernel::{records::Buffer, support::may_trace},
    model::{
        Fact,
        FactState::{self, Bad, Good, Less, Unknown},
    },
};

/// The facts, in the order in which fdtrace needs them.
pub(super) fn judge(host: &HostFacts) -> Vec<Fact> {
    vec![
        capabilities(host.capabilities),
        btf(&host.btf.0, &host.btf.1),
        buffer(host.buffer.as_ref()),
        lockdown(&host.lockdown),
        security_modules(&host.security_modules),
        seccomp(host.is_filtered),
        tracefs(host),
        kprobes(host.has_kprobes),
        cgroup(host.cgroup.as_deref()),
        namespaces(host),
        jit(host.is_jit_on),
    ]
}

fn fact(name: &'static str, state: FactState, value: impl Into<String>) -> Fact {
    Fact { name, state, value: value.into(), consequence: None, remedy: None }
}

fn with(fact: Fact, consequence: impl Into<String>, remedy: impl Into<String>) -> Fact {
    let remedy = Some(remedy.into()).filter(|remedy| !remedy.is_empty());
    Fact { consequence: Some(consequence.into()), remedy, ..fact }
}

fn capabilities(effective: Option<u64>) -> Fact {
    let name = "capabilities";
    let Some(effective) = effective else {
        return with(
            fact(name, Unknown, "/proc/self/status cannot be read"),
            "bpf(2) will say what is missing",
            "mount proc on /proc",
        );
    };
    let names = |all: &[&Capability]| {
        all.iter().map(|capability| capability.name).collect::<Vec<_>>().join(", ")
    };
    let (held, missing) = (held(effective), missing(effective));
    if missing.is_empty() {
        return fact(name, Good, format!("all that fdtrace uses: {}", names(&held)));
    }
    let held = if held.is_empty() { "none".to_owned() } else { names(&held) };
    let value = format!("held {held}; missing {}", names(&missing));
    let is_able = may_trace(effective);
    let lost: Vec<_> = missing
        .iter()
        // Where nothing can be loaded, the rest does not matter yet.
        .filter(|capability| is_able || capability.is_of_admin)
        .map(|capability| format!("{} ({})", capability.purpose, capability.name))
        .collect();
    let consequence = format!("not possible: {}", lost.join("; "));
    if is_able {
        return with(fact(name, Less, value), consequence, "run as root, or give those you need");
    }
    with(fact(name, Bad, value), consequence, "run as root, or give CAP_BPF and CAP_PERFMON")
}

fn btf(path: &Path, size: &Result<u64, String>) -> Fact {
    let shown = path.display();
    match size {
        Ok(_) => fact("btf", Good, shown.to_string()),
        Err(error) => with(
            fact("btf", Bad, format!("{shown}: {error}")),
            "fields of kernel structures cannot be found",
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y, or give the BTF of exactly this kernel with \
             --btf FILE",
        ),
    }
}

fn buffer(buffer: Option<&Result<Buffer, String>>) -> Fact {
    let name = "buffer";
    match buffer {
        Some(Ok(Buffer::Ring)) => fact(name, Good, "a ring buffer"),
        Some(Ok(Buffer::Perf)) => with(
            fact(name, Less, "a perf buffer for each CPU"),
            "what a CPU sees that came online after fdtrace started is counted, and told late",
            "start fdtrace again after adding CPUs",
        ),
        Some(Err(why)) => with(
            fact(name, Bad, why.as_str()),
            "the programs cannot tell of anything",
            "use a later kernel",
        ),
        None => fact(name, Unknown, "only BTF says what the kernel has"),
    }
}

fn lockdown(lockdown: &Result<String, String>) -> Fact {
    let name = "lockdown";
    match lockdown {
        Ok(text) if text.contains("[confidentiality]") => with(
            fact(name, Bad, "confidentiality"),
            "no eBPF program may read kernel memory",
            "boot with lockdown=integrity, or without lockdown",
        ),
        Ok(text) if text.contains("[integrity]") => fact(name, Good, "integrity"),
        Ok(text) if text.contains("[none]") => fact(name, Good, "none"),
        Ok(text) => fact(name, Unknown, text.as_str()),
        Err(why) => fact(name, Unknown, why.as_str()),
    }
}

fn security_modules(modules: &Result<String, String>) -> Fact {
    let name = "security_modules";
    match modules {
        // So that a terminal can break it.
        Ok(modules) => fact(name, Good, modules.replace(',', ", ")),
        Err(why) => fact(name, Unknown, why.as_str()),
    }
}

fn seccomp(is_filtered: Option<bool>) -> Fact {
    let name = "seccomp";
    match is_filtered {
        Some(false) => fact(name, Good, "no filter"),
        Some(true) => with(
            fact(name, Less, "a filter is on this process, as in a container"),
            "it may forbid bpf(2) and perf_event_open(2)",
            "if a form below is forbidden, run on the host or allow these calls",
        ),
        None => fact(name, Unknown, "/proc/self/status does not say"),
    }
}

fn tracefs(host: &HostFacts) -> Fact {
    let name = "tracefs";
    let admin = host.capabilities.is_none_or(|held| held >> CAP_SYS_ADMIN & 1 == 1);
    match &host.tracefs {
        Some(place) => fact(name, Good, place.display().to_string()),
        None if host.has_tracefs && admin => {
            fact(name, Good, "not mounted; fdtrace mounts one that only it sees")
        }
        None if host.has_tracefs => with(
            fact(name, Less, "not mounted"),
            "there is no form tracepoint",
            "mount -t tracefs nodev /sys/kernel/tracing",
        ),
        None => with(
            fact(name, Less, "the kernel has none, or /sys is not mounted"),
            "there is no form tracepoint",
            "mount sysfs on /sys, or use a kernel with CONFIG_FTRACE_SYSCALLS=y",
        ),
    }
}

fn kprobes(has_kprobes: bool) -> Fact {
    if has_kprobes {
        return fact("kprobes", Good, "the kernel has them");
    }
    with(
        fact("kprobes", Less, "the kernel has none"),
        "there is no form kprobe; others may do",
        "where none does, use a kernel with CONFIG_KPROBE_EVENTS=y",
    )
}

fn cgroup(place: Option<&Path>) -> Fact {
    match place {
        Some(place) => fact("cgroup_v2", Good, place.display().to_string()),
        None => with(
            fact("cgroup_v2", Less, "not mounted"),
            "there is no form cgroup_skb, and processes have a unit and a container only where a \
             hierarchy of version 1 tells them",
            "mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
    }
}

fn namespaces(host: &HostFacts) -> Fact {
    let name = "namespaces";
    match (host.is_in_initial_pid_ns, host.is_in_initial_cgroup_ns) {
        (Some(true), Some(true)) => fact(name, Good, "those of the host"),
        (None, _) | (_, None) => fact(name, Unknown, "/proc/self/ns cannot be read"),
        (pid, cgroup) => {
            let mut which = Vec::new();
            let mut hidden = Vec::new();
            if pid == Some(false) {
                which.push("pid");
                hidden.push("processes outside of this pid namespace have no name here");
            }
            if cgroup == Some(false) {
                which.push("cgroup");
                hidden.push("the form cgroup_skb sees only sockets of this cgroup");
            }
            let value = format!("in a container's: {}", which.join(", "));
            let remedy = "run on the host, or with its pid and cgroup namespace";
            with(fact(name, Less, value), hidden.join("; "), remedy)
        }
    }
}

fn jit(is_on: Option<bool>) -> Fact {
    match is_on {
        Some(true) => fact("jit", Good, "on"),
        Some(false) => with(
            fact("jit", Less, "off"),
            "programs are interpreted: slower, and not in the forms fexit and fentry",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        None => fact("jit", Unknown, "/proc/sys/net/core/bpf_jit_enable cannot be read"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A host on which nothing is missing.
    pub(in super::super) fn capable() -> HostFacts {
        HostFacts {
            kernel: "6.12.1".to_owned(),
            btf: (PathBuf::from("/sys/kernel/btf/vmlinux"), Ok(5_000_000)),
            buffer: Some(Ok(Buffer::Ring)),
            tracefs: Some(PathBuf::from("/sys/kernel/tracing")),
            has_tracefs: true,
            cgroup: Some(PathBuf::from("/sys/fs/cgroup")),
            has_kprobes: true,
            lockdown: Ok("[none] integrity confidentiality".to_owned()),
            security_modules: Ok("capability,apparmor".to_owned()),
            capabilities: Some(u64::MAX),
            is_filtered: Some(false),
            is_in_initial_pid_ns: Some(true),
            is_in_initial_cgroup_ns: Some(true),
            is_jit_on: Some(true),
            runs_32_bit: Some(false),
        }
    }

    #[test]
    fn a_capable_host_has_nothing_to_complain_of() {
        for fact in judge(&capable()) {
            assert_eq!(fact.state, Good, "{fact:?}");
            assert_eq!((&fact.consequence, &fact.remedy), (&None, &None), "{fact:?}");
        }
    }

    /// What changes where something is taken away.
    #[track_caller]
    fn without(take: impl FnOnce(&mut HostFacts), name: &str, state: FactState) -> Fact {
        let mut host = capable();
        take(&mut host);
        let changed: Vec<_> =
            judge(&host).into_iter().filter(|fact| !judge(&capable()).contains(fact)).collect();
        let [fact] = changed.as_slice() else { panic!("{changed:#?}") };
        assert_eq!((fact.name, fact.state), (name, state), "{fact:?}");
        fact.clone()
    }

    #[test]
    fn each_loss_is_one_fact() {
        without(|host| host.btf.1 = Err("No such file".to_owned()), "btf", Bad);
        without(|host| host.buffer = Some(Ok(Buffer::Perf)), "buffer", Less);
        without(|host| host.buffer = Some(Err("needs 5.5".to_owned())), "buffer", Bad);
        without(|host| host.buffer = None, "buffer", Unknown);
        let closed = "none integrity [confidentiality]";
        without(|host| host.lockdown = Ok(closed.to_owned()), "lockdown", Bad);
        without(|host| host.lockdown = Ok("none [integrity] x".to_owned()), "lockdown", Good);
        without(|host| host.lockdown = Err("no".to_owned()), "lockdown", Unknown);
        without(|host| host.security_modules = Err("no".to_owned()), "security_modules", Unknown);
        without(|host| host.is_filtered = Some(true), "seccomp", Less);
        without(|host| host.has_kprobes = false, "kprobes", Less);
        without(|host| host.cgroup = None, "cgroup_v2", Less);
        without(|host| host.is_in_initial_pid_ns = Some(false), "namespaces", Less);
        without(|host| host.is_in_initial_cgroup_ns = Some(false), "namespaces", Less);
        without(|host| host.is_jit_on = Some(false), "jit", Less);
        without(|host| host.tracefs = None, "tracefs", Good);
        let none = |host: &mut HostFacts| (host.tracefs, host.has_tracefs) = (None, false);
        let fact = without(none, "tracefs", Less);
        assert!(fact.consequence.is_some() && fact.remedy.is_some());
    }

    #[test]
    fn capabilities_are_needed_or_useful() {
        without(|host| host.capabilities = Some(0), "capabilities", Bad);
        without(|host| host.capabilities = None, "capabilities", Unknown);
        let fact = without(|host| host.capabilities = Some(1 << 21), "capabilities", Less);
        assert_eq!(
            fact.value,
            "held CAP_SYS_ADMIN; missing CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH"
        );
        assert!(fact.consequence.unwrap().contains("(CAP_SYS_PTRACE)"));
    }
}
