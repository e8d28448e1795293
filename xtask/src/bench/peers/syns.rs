//! What an operator would use to see refused SYNs.

use std::time::Duration;

use super::{Peer, Seen, Tells};
use crate::bench::attachment::Ready;

const NOTHING: Tells = Tells { process: false, port: false, limit: false };

/// SYNs that the kernel refuses end where accepted ones do, in consume_skb (net/ipv4/tcp_input.c
/// tcp_rcv_state_process, v6.12): those who look there count both.
pub(super) static PEERS: [Peer; 5] = [
    Peer {
        name: "libbpf-tools tcpsynbl",
        needs: "/usr/sbin/tcpsynbl",
        command: "exec /usr/sbin/tcpsynbl",
        ready: Ready::After(Duration::from_secs(1)),
        // Histograms of the queue's length, by its limit.
        seen: Seen::Number(|_| None),
        tells: Tells { process: false, port: false, limit: true },
    },
    Peer {
        name: "bcc tcpsynbl",
        needs: "tcpsynbl-bpfcc",
        command: "exec tcpsynbl-bpfcc",
        ready: Ready::Line("Tracing"),
        seen: Seen::Number(|_| None),
        tells: Tells { process: false, port: false, limit: true },
    },
    Peer {
        name: "bpftrace, skb:consume_skb (accepted SYNs too)",
        needs: "bpftrace",
        command: CONSUMED,
        ready: Ready::Line("ready"),
        seen: Seen::Number(|output| {
            // One line for each port; the workload's is by far the highest.
            let lines = output.lines().filter(|line| line.starts_with("@["));
            lines.filter_map(super::last_number).max()
        }),
        tells: Tells { process: false, port: true, limit: false },
    },
    Peer {
        name: "tracefs, skb:consume_skb, filter (accepted SYNs too)",
        needs: "/sys/kernel/tracing",
        command: TRACEFS,
        ready: Ready::Line("ready"),
        seen: Seen::Lines("location=tcp_rcv_state_process"),
        tells: NOTHING,
    },
    Peer {
        name: "nstat TcpExtListenDrops",
        needs: "nstat",
        command: NSTAT,
        ready: Ready::Line("ready"),
        seen: Seen::Number(|output| {
            let line = output.lines().find(|line| line.starts_with("TcpExtListenDrops"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        }),
        tells: NOTHING,
    },
];

/// By hand: tracepoints do not tell that it is a SYN, and to which port.
const CONSUMED: &str = "exec bpftrace -e 'BEGIN { printf(\"ready\\n\"); } \
    tracepoint:skb:consume_skb { \
      $s = (struct sk_buff *)args->skbaddr; \
      $i = (struct iphdr *)($s->head + $s->network_header); \
      $t = (struct tcphdr *)($s->head + $s->transport_header); \
      if ($s->protocol == 8 && $i->protocol == 6 && $t->syn && !$t->ack) { \
        @[$t->dest] = count(); } }'";

/// In an instance of its own, which goes with it.
const TRACEFS: &str = "\
    i=/sys/kernel/tracing/instances/fdtrace-bench; mkdir $i || exit; \
    e=$i/events/skb/consume_skb; \
    echo 'location.function == tcp_rcv_state_process' >$e/filter || { rmdir $i; exit 1; }; \
    echo 1 >$e/enable; \
    trap 'echo 0 >$e/enable; cat $i/trace; rmdir $i; exit 0' INT; \
    echo ready; while :; do sleep 0.05; done";

/// Once before and once after, in the workload's network namespace: what it costs is two reads.
const NSTAT: &str = "exec nsenter --net=/proc/{pid}/ns/net sh -c '\
    h=$(mktemp); export NSTAT_HISTORY=$h; \
    nstat -n; trap \"nstat -az TcpExtListenDrops; rm $h; exit 0\" INT; \
    echo ready; while :; do sleep 0.05; done'";
