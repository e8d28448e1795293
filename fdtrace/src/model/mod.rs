//! The vocabulary as types. Stages exchange these and nothing else; only `std` is used here.

mod call;
mod episode;
mod event;
mod filter;
mod limits;
mod listener;
mod process;
mod report;
mod time;

pub use call::{Door, Errno};
pub use episode::{Outcome, Phase};
pub use event::{FailureEvent, KeyId};
pub use filter::Filter;
pub use limits::{FdLimits, FdUsage, Limit};
pub use listener::{AcceptQueue, Listener, ListenerAddress, Target, UnixName};
pub use process::{Comm, Pid, Process, ProcessId, Tid};
pub use report::{
    EpisodeReport, LostCount, LostKind, LostReport, ProbeReport, Report, Started, Summary, Total,
};
pub use time::{BootTime, WallClock};
