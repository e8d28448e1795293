//! How a trace stands at one moment, while it goes on: what metrics show.

use std::time::{Duration, SystemTime};

use super::{
    Comm, CounterPair, Door, Failure, Gauge, Known, ListenerAddress, LostCount, ProbeReport,
    Process, ProgramCost, Resource, Target,
};

/// Everything that is counted, and what is going on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When fdtrace attached.
    pub started: SystemTime,
    /// fdtrace's version.
    pub version: &'static str,
    /// Failures that were asked for. They only grow.
    pub failures: Vec<SeriesCount>,
    /// Episodes that are open.
    pub episodes: Vec<OpenEpisode>,
    /// How many were opened, by why.
    pub opened: Vec<(Failure, u64)>,
    /// What is close to its limit.
    pub close: Vec<CloseToLimit>,
    /// Every reason for loss, those at 0 too.
    pub lost: Vec<LostCount>,
    /// Records that could not be decoded.
    pub undecoded: u64,
    /// The kernel's own counters, the sum of all network namespaces.
    pub kernel: Vec<CounterPair>,
    /// What is attached.
    pub probes: Vec<ProbeReport>,
    /// What the programs cost; `None` where the kernel does not measure.
    pub programs: Option<Vec<ProgramCost>>,
    /// What fdtrace itself takes.
    pub own: OwnUsage,
}

/// What tells two figures of a metric apart: never a process's number, which would make a new one of
/// every restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// The lead owner's short name.
    pub process: Option<Comm>,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// Its container's id as people write it, or name.
    pub container: Option<String>,
    /// Its pod's name, or else its UID.
    pub pod: Option<String>,
    /// The listener.
    pub listener: Option<ListenerAddress>,
}

impl Who {
    /// Of owners, the lead one first, and what they listen on.
    #[must_use]
    pub fn of(owners: &[Process], target: &Target) -> Self {
        let lead = owners.first();
        Self {
            process: lead.map(|lead| lead.comm.clone()),
            unit: lead.and_then(|lead| lead.unit.clone()),
            container: lead.and_then(|lead| Some(lead.container.as_ref()?.short().to_owned())),
            pod: lead.and_then(|lead| {
                let pod = lead.pod.as_ref()?;
                Some(pod.name.as_ref().unwrap_or(&pod.uid).clone())
            }),
            listener: target.listener().map(|listener| listener.address.clone()),
        }
    }
}

/// What failures are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// Whose, on which listener; `None` is everybody whom there was no more room to tell apart.
    pub who: Option<Who>,
    /// Why. Whether the SYN queue was full too makes no difference here.
    pub failure: Failure,
    /// Where.
    pub door: Door,
}

/// How many failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesCount {
    /// Which; `None` is those of which nothing is known any more.
    pub series: Option<Series>,
    /// How many since fdtrace attached.
    pub count: u64,
}

/// An episode that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenEpisode {
    /// Whose, the lead one first.
    pub owners: Vec<Process>,
    /// On what.
    pub target: Target,
    /// Why.
    pub failure: Failure,
    /// The cause, where it was told.
    pub cause: Option<Known>,
}

/// Something that was warned of, and is not over.
#[derive(Clone, Debug, PartialEq)]
pub struct CloseToLimit {
    /// Whose, the lead one first.
    pub owners: Vec<Process>,
    /// The listener.
    pub target: Target,
    /// What fills.
    pub resource: Resource,
    /// How full it was at the last look.
    pub gauge: Gauge,
}

/// What fdtrace itself takes; each `None` where it could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnUsage {
    /// Time on a core, of all threads, since it was started.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: Option<u64>,
    /// Open descriptors.
    pub fds: Option<u64>,
}
