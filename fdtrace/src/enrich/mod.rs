//! Stage 3: a process id from the kernel becomes a process a person knows.
//!
//! In: who failed and when it started. Out: its executable, arguments, unit, container, open
//! descriptors and limits, each `None` where it could not be read. Only `/proc` is read, under a
//! root that the caller names. Nothing here waits, writes, or calls bpf(2), and nothing read here
//! decides whether a failure is counted.

pub mod acceptor;
pub mod census;
mod cgroup;
mod clock;
pub mod find;
mod mounts;
mod netns;
mod own;
mod owners;
mod parse;
mod proc_dir;
mod processes;
pub mod provenance;
mod sock_diag;
mod system;
mod task_dir;
mod user;
mod worker;

pub use cgroup::placement;
pub use clock::{boot_time, read_clocks};
pub use netns::{Namespaces, NetnsDelta, NetnsFacts};
pub use own::own_usage;
pub use owners::{Owner, Owners, owners_now, same_process};
pub use processes::Processes;
pub use sock_diag::{
    HostListeners, NetnsListeners, TcpListeners, accept_queues, accept_queues_in, half_open,
    host_listeners,
};
pub use system::system_limits;
pub use user::holdings;
pub use worker::Worker;
