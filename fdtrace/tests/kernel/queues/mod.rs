//! Clients that are refused. The kernel counts them for each network namespace, and fdtrace's counts
//! must be equal to those, to the last one; every case has a namespace of its own.

mod case;
mod cgroup_ns;
mod clients;
mod closing;
mod device;
mod diagnosed;
mod endurance;
mod final_ack;
mod flood;
mod limits;
mod metrics;
mod network;
mod owners;
mod polled;
mod resting;
mod segments;
mod silence;
mod syn;
mod syn_queue;
mod usage;

use crate::Test;

pub(crate) const TESTS: &[&[Test]] = &[
    syn::TESTS,
    final_ack::TESTS,
    syn_queue::TESTS,
    silence::TESTS,
    closing::TESTS,
    owners::TESTS,
    polled::TESTS,
    resting::TESTS,
    flood::TESTS,
    diagnosed::TESTS,
    endurance::TESTS,
    metrics::TESTS,
    cgroup_ns::TESTS,
    limits::TESTS,
];
