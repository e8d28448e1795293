//! The vocabulary as types. Stages exchange these and nothing else; only `std` is used here.

mod acceptor;
mod audit;
mod call;
mod census;
mod diagnosis;
mod doctor;
mod episode;
mod event;
mod explain;
mod filter;
mod identity;
mod limits;
mod listener;
mod process;
mod provenance;
mod report;
mod sample;
mod snapshot;
mod socket;
mod time;
mod user;
mod warning;

pub use acceptor::{Acceptor, Behaviour, Syscall, Thread, ThreadState};
pub use audit::{AuditReport, Audited, Finding, FindingKind, Level};
pub use call::{Door, Errno, Failure};
pub use census::{
    Census, DescriptorSource, DistinctPeers, EarlierCensus, FdKind, FdSample, ListenerShare,
    OpenDescriptor, OpenFds, OpenKind, PathShare, Peer, PeerShare, Silence, TcpState,
};
pub use diagnosis::{Cause, Certainty, Diagnosis, Evidence, Known, Remedy, Value, When};
pub use doctor::{
    BlindSpot, Check, DoctorReport, DoctorVerdict, Fact, FactState, FormExamined, FormOutcome,
    ProbeExamined, ProgramCost, SelfTest,
};
pub use episode::{Outcome, Phase};
pub use event::{Caller, Event, FailureEvent, GaugeEvent, KeyId, ListenEvent};
pub use explain::{
    Bystander, ExplainReport, Explanation, ListenerQuery, Subject, Verdict, is_called,
};
pub use filter::{Filter, ProcessFilter};
pub use identity::{Container, ContainerQuery, Engine, Placement, Pod};
pub use limits::{Ceiling, FdLimits, FdUsage, FileHandles, Limit, Met, SystemLimits};
pub use listener::{AcceptQueue, Backlog, Listener, ListenerAddress, Target, UnixName};
pub use process::{Comm, Pid, Process, ProcessId, Tid};
pub use provenance::{
    Ancestor, ChainEnd, ConfiguredSysctl, ContainerRuntime, FileFact, LoginLimits, Manager, Place,
    Program, Provenance, Role, Runtime, Setting, SettingSource, Sysctl, Sysctls, Unit,
};
pub use report::{
    CounterPair, DiagnosisReport, EpisodeReport, Figures, LostCount, LostKind, LostReport,
    ProbeReport, Reconciliation, Refused, RefusedForm, Report, Started, Summary, Total,
};
pub use sample::{FailureSample, HalfOpen, Handshakes, QueueSample};
pub use snapshot::{CloseToLimit, OpenEpisode, OwnUsage, Series, SeriesCount, Snapshot, Who};
pub use socket::{
    LimitSource, ListenerFilter, ListenerReport, ListenersReport, ListeningSocket, OwnerFds, Risk,
    Unseen,
};
pub use time::{BootTime, WallClock};
pub use user::{Holder, PerUser, UserHoldings};
pub use warning::{Filling, Gauge, Resource, Thresholds, Warning, WarningReport};
