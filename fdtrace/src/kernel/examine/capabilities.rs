//! Capabilities: which fdtrace uses, and what for.

/// A capability that fdtrace uses.
#[derive(Debug)]
pub(super) struct Capability {
    /// Its bit.
    pub(super) number: u32,
    /// Its name.
    pub(super) name: &'static str,
    /// What it is for.
    pub(super) purpose: &'static str,
    /// Whether CAP_SYS_ADMIN does instead (include/linux/capability.h `bpf_capable`,
    /// `perfmon_capable`, v6.12).
    pub(super) is_of_admin: bool,
}

pub(super) const CAP_SYS_ADMIN: u32 = 21;

/// Those that fdtrace uses.
pub(super) const USED: [Capability; 6] = [
    Capability { number: 39, name: "CAP_BPF", purpose: "loading programs", is_of_admin: true },
    Capability {
        number: 38,
        name: "CAP_PERFMON",
        purpose: "reading kernel memory in programs",
        is_of_admin: true,
    },
    Capability {
        number: 12,
        name: "CAP_NET_ADMIN",
        purpose: "refused clients in the form cgroup_skb",
        is_of_admin: false,
    },
    Capability {
        number: 19,
        name: "CAP_SYS_PTRACE",
        purpose: "owners of listeners, and open descriptors, of other users' processes",
        is_of_admin: false,
    },
    Capability {
        number: 2,
        name: "CAP_DAC_READ_SEARCH",
        purpose: "the same, and looking into tracefs",
        is_of_admin: false,
    },
    Capability {
        number: CAP_SYS_ADMIN,
        name: "CAP_SYS_ADMIN",
        purpose: "listeners and counters of other network namespaces, a tracefs of fdtrace's own, \
                  the cost of programs",
        is_of_admin: false,
    },
];

const fn has(effective: u64, number: u32) -> bool {
    effective >> number & 1 == 1
}

/// Which of those that fdtrace uses are in a set of effective capabilities.
pub(super) fn held(effective: u64) -> Vec<&'static Capability> {
    USED.iter().filter(|capability| has(effective, capability.number)).collect()
}

/// What is missing in it.
pub(super) fn missing(effective: u64) -> Vec<&'static Capability> {
    let has = |number: u32| has(effective, number);
    let is_missing = |capability: &&Capability| {
        !(has(capability.number) || (capability.is_of_admin && has(CAP_SYS_ADMIN)))
    };
    USED.iter().filter(is_missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(effective: u64) -> Vec<&'static str> {
        missing(effective).into_iter().map(|capability| capability.name).collect()
    }

    #[test]
    fn admin_stands_for_what_was_split_off_from_it() {
        assert_eq!(names(u64::MAX), [""; 0]);
        assert_eq!(names(0).len(), USED.len());
        assert_eq!(
            names(1 << CAP_SYS_ADMIN),
            ["CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]
        );
        let trace = 1 << 39 | 1 << 38 | 1 << 19 | 1 << 2 | 1 << 12;
        assert_eq!(names(trace), ["CAP_SYS_ADMIN"]);
        assert_eq!(held(0).len(), 0);
        assert_eq!(held(u64::MAX).len(), USED.len());
        assert_eq!(held(1 << 39 | 1 << 5)[0].name, "CAP_BPF");
    }
}
