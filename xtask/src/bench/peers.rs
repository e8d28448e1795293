//! What an operator would use instead, as one would type it. Those that are not installed (`cargo
//! xtask setup --bench`) are left out, and the report says so.

mod syns;

use std::{path::Path, time::Duration};

use super::{attachment::Ready, work::Work};
use crate::repo;

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// What must be there to run it, a program or a file.
    pub(crate) needs: &'static str,
    /// For sh; `{pid}` is the process that works.
    pub(crate) command: &'static str,
    pub(crate) ready: Ready,
    pub(crate) seen: Seen,
    pub(crate) tells: Tells,
}

impl Peer {
    pub(crate) fn is_here(&self) -> bool {
        Path::new(self.needs).exists() || repo::find_program(self.needs).is_some()
    }

    /// Why it does not run, in its own words: the last line that names a cause, or the last.
    pub(crate) fn words(&self, error: &str) -> String {
        let mut causes =
            error.lines().filter(|line| CAUSES.iter().any(|cause| line.contains(cause)));
        let line = causes.next_back().or_else(|| error.lines().last()).unwrap_or_default();
        let before = format!("start {}: ", self.name);
        line.strip_prefix(&before).unwrap_or(line).to_owned()
    }
}

/// Where a tool's last line says no more than that something failed, one before it has these words.
const CAUSES: [&str; 2] = ["libbpf: failed to", "Unable to find kernel headers"];

/// How its output says how many failures there were.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// A line for each, with this in it.
    Lines(&'static str),
    /// A number somewhere.
    Number(fn(&str) -> Option<u64>),
}

/// What the operator learns from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tells {
    pub(crate) process: bool,
    pub(crate) port: bool,
    pub(crate) limit: bool,
}

const PROCESS: Tells = Tells { process: true, port: false, limit: false };

/// Those that can do a part of what is measured by a workload; they take their time, so not beside
/// the others.
pub(crate) fn beside(work: Work) -> &'static [Peer] {
    match work {
        Work::Getppid | Work::Accept | Work::Refused => &CALLS,
        Work::Flood => &syns::PEERS,
        _ => &[],
    }
}

/// All that were to be measured.
pub(crate) fn all() -> impl Iterator<Item = &'static Peer> {
    CALLS.iter().chain(&syns::PEERS)
}

/// What tools need of a host that not every host has, by how their names begin.
pub(crate) const WANTS: [(&str, &str); 3] = [
    ("bcc ", "the headers of the running kernel: it compiles its program on the host"),
    ("libbpf-tools tcpsynbl", "fentry or kprobes"),
    ("sysdig", "a kernel module or a probe, and to build either the headers of the running kernel"),
];

static CALLS: [Peer; 10] = [
    Peer {
        name: "strace -f -e accept4 -Z",
        needs: "strace",
        command: "exec strace -f -e trace=accept4 -Z -p {pid}",
        ready: Ready::Line("attached"),
        seen: Seen::Lines("EMFILE"),
        tells: PROCESS,
    },
    Peer {
        name: "strace -c -Z",
        needs: "strace",
        command: "exec strace -f -c -e trace=accept4 -Z -p {pid}",
        ready: Ready::Line("attached"),
        seen: Seen::Number(|output| word_before(output, "accept4", 1)),
        tells: PROCESS,
    },
    Peer {
        name: "perf trace --failure",
        needs: "perf",
        command: "exec perf trace --failure -e accept4 -a",
        ready: Ready::After(Duration::from_millis(1500)),
        seen: Seen::Lines("EMFILE"),
        tells: PROCESS,
    },
    Peer {
        name: "perf stat, filter ret == -24",
        needs: "perf",
        command: "exec perf stat -a -e syscalls:sys_exit_accept4 --filter 'ret == -24'",
        ready: Ready::After(Duration::from_millis(500)),
        seen: Seen::Number(|output| word_before(output, "syscalls:sys_exit_accept4", 1)),
        tells: Tells { process: false, port: false, limit: false },
    },
    Peer {
        name: "tracefs event, filter",
        needs: "/sys/kernel/tracing",
        command: TRACEFS,
        ready: Ready::Line("ready"),
        seen: Seen::Lines("sys_accept4 -> 0xffffffffffffffe8"),
        tells: PROCESS,
    },
    Peer {
        name: "bpftrace, count()",
        needs: "bpftrace",
        command: "exec bpftrace -e 'BEGIN { printf(\"ready\\n\"); } \
                  tracepoint:syscalls:sys_exit_accept4 /args->ret == -24/ { @[pid, comm] = count(); }'",
        ready: Ready::Line("ready"),
        seen: Seen::Number(|output| {
            let line = output.lines().find(|line| line.starts_with("@["))?;
            line.rsplit(' ').next()?.parse().ok()
        }),
        tells: PROCESS,
    },
    Peer {
        name: "bpftrace, printf()",
        needs: "bpftrace",
        command: "exec bpftrace -e 'BEGIN { printf(\"ready\\n\"); } \
                  tracepoint:syscalls:sys_exit_accept4 /args->ret == -24/ \
                  { printf(\"%d %s EMFILE\\n\", pid, comm); }'",
        ready: Ready::Line("ready"),
        seen: Seen::Lines("EMFILE"),
        tells: PROCESS,
    },
    Peer {
        name: "bcc syscount -e EMFILE",
        needs: "syscount-bpfcc",
        command: "exec syscount-bpfcc -e EMFILE -P",
        ready: Ready::Line("Tracing"),
        seen: Seen::Number(|output| {
            output.lines().find_map(|line| line.contains("xtask").then(|| last_number(line))?)
        }),
        tells: PROCESS,
    },
    Peer {
        name: "libbpf-tools syscount -e EMFILE",
        needs: "/usr/sbin/syscount",
        command: "exec /usr/sbin/syscount -e EMFILE -P",
        // What it says stays in its buffer, where stdout is a pipe.
        ready: Ready::After(Duration::from_secs(1)),
        seen: Seen::Number(|output| {
            output.lines().find_map(|line| line.contains("xtask").then(|| last_number(line))?)
        }),
        tells: PROCESS,
    },
    Peer {
        name: "sysdig evt.res=EMFILE",
        needs: "sysdig",
        command: "exec sysdig -p '%proc.name %proc.pid %evt.res' \
                  'evt.type=accept4 and evt.res=EMFILE'",
        // It says nothing when it is ready. Where it has no driver it ends within this time.
        ready: Ready::After(Duration::from_secs(3)),
        seen: Seen::Lines("EMFILE"),
        tells: PROCESS,
    },
];

/// In an instance of its own, which goes with it.
const TRACEFS: &str = "\
    i=/sys/kernel/tracing/instances/fdtrace-bench; mkdir $i || exit; \
    e=$i/events/syscalls/sys_exit_accept4; echo 'ret == -24' >$e/filter; echo 1 >$e/enable; \
    trap 'echo 0 >$e/enable; cat $i/trace; rmdir $i; exit 0' INT; \
    echo ready; while :; do sleep 0.05; done";

/// The number some words before a word of the same line.
fn word_before(output: &str, word: &str, back: usize) -> Option<u64> {
    output.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let at = words.iter().position(|other| *other == word)?;
        number(words.get(at.checked_sub(back)?)?)
    })
}

fn last_number(line: &str) -> Option<u64> {
    number(line.split_whitespace().next_back()?)
}

fn number(word: &str) -> Option<u64> {
    word.replace([',', '.'], "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_told_in_the_tools_words() {
        let peer = &syns::PEERS[0];
        let error = "start libbpf-tools tcpsynbl: it ended: libbpf: failed to add: No such file\n\
                     libbpf: prog 'x': failed\nfailed to attach BPF programs";
        assert_eq!(peer.words(error), "it ended: libbpf: failed to add: No such file");
        assert_eq!(peer.words("a\nno driver"), "no driver");
        assert_eq!(peer.words(""), "");
    }

    #[test]
    fn numbers_are_found_in_what_peers_print() {
        let perf = "     1,234,567      syscalls:sys_exit_accept4\n";
        assert_eq!(word_before(perf, "syscalls:sys_exit_accept4", 1), Some(1_234_567));
        let strace = "100.00    0.5           2    300000    300000 accept4\n";
        assert_eq!(word_before(strace, "accept4", 1), Some(300_000));
        assert_eq!(word_before(strace, "accept4", 9), None);
        assert_eq!(last_number("812     xtask          300000"), Some(300_000));
        assert_eq!(last_number("no number"), None);
    }
}
