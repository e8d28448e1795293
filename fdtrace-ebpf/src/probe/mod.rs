//! One file per observed fact. A program's name is the fact and its form: `_fe` fentry, `_fx` fexit,
//! `_kp` kprobe, `_kr` kretprobe, `_tp` tracepoint, `_btp` BTF tracepoint, `_cg` cgroup_skb.

mod accept;
mod call;
mod fds;
mod gauge;
mod listen;
mod refused;
mod socket;
mod uring;
