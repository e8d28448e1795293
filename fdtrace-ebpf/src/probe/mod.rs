//! One file per observed fact. A program's name is the fact and its form: `_tp` tracepoint, `_cg`
//! cgroup_skb.

mod accept;
mod call;
mod listen;
mod refused;
mod socket;
