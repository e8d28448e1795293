//! What stays hidden on this host, by the forms that are used: a pure function. The tests of every
//! door, tests/kernel/doors, hold it against what is counted.

use super::host::HostFacts;
use crate::{
    kernel::probes::{NO_FORM, POLLED_FORM},
    model::{BlindSpot, ProbeExamined},
};

/// Probes of system calls that take connections or make sockets.
const CALLS: [&str; 4] = ["accept", "socket", "socketpair", "listen"];

/// What is not seen.
pub(super) fn unseen(
    probes: &[ProbeExamined],
    host: &HostFacts,
    tells_skips: bool,
) -> Vec<BlindSpot> {
    let form = |name: &str| {
        probes.iter().find(|probe| probe.probe == name).map_or(NO_FORM, |probe| probe.used)
    };
    let mut unseen = Vec::new();
    let mut add = |what, why: &str, remedy: Option<&str>| {
        unseen.push(BlindSpot { what, why: why.to_owned(), remedy: remedy.map(str::to_owned) });
    };

    let hidden: Vec<_> = CALLS.into_iter().filter(|call| form(call) == NO_FORM).collect();
    if !hidden.is_empty() {
        let calls = hidden.join(", ");
        add("failed calls", &format!("no form of these can be attached: {calls}"), None);
    }
    let by_tracepoint = CALLS.iter().any(|call| form(call) == "tracepoint");
    // arch/x86/include/asm/ftrace.h ARCH_TRACE_IGNORE_COMPAT_SYSCALLS
    if by_tracepoint && host.runs_32_bit != Some(false) {
        add(
            "calls of 32-bit programs",
            "tracepoints of system calls are not for them",
            Some("the forms fexit and kprobe see them"),
        );
    }
    if form("accept") == "kprobe" {
        add(
            "accepts of many tasks at once",
            "a return probe follows 10 tasks, or two for each CPU, that wait in accept",
            Some("the forms fexit and tracepoint have no such limit"),
        );
    }
    if form("io_uring") == NO_FORM {
        add("accepts of io_uring", "no form of the probe io_uring can be attached", None);
    }
    files(form("fds"), probes, &mut add);
    refused_clients(form, host, &mut add);
    add(
        "connects to AF_UNIX sockets that are refused",
        "the client's call fails, and the listener is not told",
        None,
    );
    if host.is_in_initial_pid_ns == Some(false) {
        add(
            "names of processes outside of this container",
            "fdtrace runs in a pid namespace of its own, and /proc shows only that",
            Some("run on the host, or with its pid namespace"),
        );
    }
    if !tells_skips {
        add(
            "how often the kernel skipped a program",
            "it does so while another program runs on the same CPU, and counts it since 6.7",
            None,
        );
    }
    unseen
}

/// Other calls that get no descriptor.
fn files(
    form: &str,
    probes: &[ProbeExamined],
    add: &mut dyn FnMut(&'static str, &str, Option<&str>),
) {
    let is_asked_for = probes.iter().any(|probe| probe.probe == "fds" && !probe.points.is_empty());
    match form {
        NO_FORM => add("open, pipe, dup, … without a descriptor", "no form can be attached", None),
        _ if !is_asked_for => add(
            "open, pipe, dup, … without a descriptor",
            "they are only looked at when asked for",
            Some("give --fds"),
        ),
        _ => {}
    }
    if form == "tracepoint" {
        add(
            "descriptors that recvmsg drops, and io_uring but for accept, also with --fds",
            "the call does not fail (SCM_RIGHTS), or is no system call",
            Some("the forms fexit and kprobe of the probe fds see them"),
        );
    }
}

fn refused_clients(
    form: impl Fn(&str) -> &'static str,
    host: &HostFacts,
    add: &mut dyn FnMut(&'static str, &str, Option<&str>),
) {
    for (probe, what) in [
        ("syn", "exact numbers of refused clients (SYN)"),
        ("ack", "exact numbers of refused clients (last ACK of the handshake)"),
    ] {
        match form(probe) {
            POLLED_FORM => add(
                what,
                "no form can be attached: listeners are polled, which gives upper bounds",
                Some("mount cgroup v2, and give CAP_NET_ADMIN: the form cgroup_skb needs no more"),
            ),
            NO_FORM => add(what, "no form can be attached", None),
            _ => {}
        }
    }
    let by_packets = ["syn", "ack"].iter().any(|probe| form(probe) == "cgroup_skb");
    if by_packets && host.is_in_initial_cgroup_ns == Some(false) {
        add(
            "refused clients of listeners outside of this container",
            "the form cgroup_skb is attached to the cgroup that fdtrace sees as the root",
            Some("run on the host, or with its cgroup namespace"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{super::facts::tests::capable, *};

    fn probes(forms: &[(&'static str, &'static str)]) -> Vec<ProbeExamined> {
        let every = [
            ("accept", "fexit"),
            ("socket", "fexit"),
            ("socketpair", "fexit"),
            ("listen", "fexit"),
            ("io_uring", "fexit"),
            ("fds", "fexit"),
            ("syn", "fentry"),
            ("ack", "fentry"),
        ];
        let form = |probe: &str, best: &'static str| {
            let changed = forms.iter().find(|(name, _)| *name == probe);
            changed.map_or(best, |(_, form)| *form)
        };
        let examined = |(probe, best)| ProbeExamined {
            probe,
            used: form(probe, best),
            on_request: probe == "fds",
            points: vec!["somewhere".to_owned()],
            forms: Vec::new(),
        };
        every.into_iter().map(examined).collect()
    }

    fn whats(forms: &[(&'static str, &'static str)], host: &HostFacts) -> Vec<&'static str> {
        unseen(&probes(forms), host, true).into_iter().map(|unseen| unseen.what).collect()
    }

    const UNIX: &str = "connects to AF_UNIX sockets that are refused";

    #[test]
    fn a_capable_host_hides_only_what_no_host_shows() {
        assert_eq!(whats(&[], &capable()), [UNIX]);
    }

    #[test]
    fn each_form_hides_its_own() {
        let host = capable();
        let compat = HostFacts { runs_32_bit: Some(true), ..capable() };
        assert_eq!(whats(&[("accept", "tracepoint")], &host), [UNIX]);
        assert_eq!(whats(&[("accept", "tracepoint")], &compat), ["calls of 32-bit programs", UNIX]);
        assert_eq!(
            whats(&[("accept", "kprobe")], &compat),
            ["accepts of many tasks at once", UNIX]
        );
        assert_eq!(whats(&[("socket", "none")], &host), ["failed calls", UNIX]);
        assert_eq!(whats(&[("io_uring", "none")], &host), ["accepts of io_uring", UNIX]);
        assert_eq!(
            whats(&[("fds", "tracepoint")], &host),
            ["descriptors that recvmsg drops, and io_uring but for accept, also with --fds", UNIX]
        );
        assert_eq!(
            whats(&[("syn", "sock_diag")], &host),
            ["exact numbers of refused clients (SYN)", UNIX]
        );
        let contained = HostFacts { is_in_initial_cgroup_ns: Some(false), ..capable() };
        assert_eq!(whats(&[], &contained), [UNIX]);
        assert_eq!(
            whats(&[("syn", "cgroup_skb")], &contained),
            ["refused clients of listeners outside of this container", UNIX]
        );
    }

    #[test]
    fn what_was_not_asked_for_is_named() {
        let mut probes = probes(&[]);
        probes[5].points.clear();
        let unseen = unseen(&probes, &capable(), false);
        assert_eq!(unseen[0].remedy.as_deref(), Some("give --fds"));
        assert_eq!(unseen.len(), 3);
    }
}
