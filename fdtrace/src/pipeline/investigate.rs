//! Finding out why an episode happens, beside the trace: what takes milliseconds to read is read on
//! threads of its own, and no failure waits for it.

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::host::PROC;
use crate::{
    diagnose::{self, EpisodeFacts},
    enrich::{acceptor, census, provenance},
    model::{
        Acceptor, BootTime, Census, DiagnosisReport, EpisodeReport, Failure, FdSample, Phase,
        ProcessId, Provenance, Target,
    },
};

/// So many at once; the others wait their turn.
const MOST_AT_ONCE: usize = 4;
/// And so many wait. Of a host on which more processes fail than that, the first ones tell enough.
const MOST_WAITING: usize = 64;
/// An episode like one before is not diagnosed again so soon: it would say the same.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Episodes that are remembered for that.
const MOST_REMEMBERED: usize = 4096;

/// What makes a diagnosis the same: a process has one limit, whatever call meets it.
type About = (Option<ProcessId>, Option<Target>, Failure);

/// What was found out about an episode.
pub(super) struct Found {
    report: Box<EpisodeReport>,
    before: Vec<FdSample>,
    provenance: Option<Provenance>,
    census: Option<Census>,
    acceptor: Option<Acceptor>,
}

/// Looking into episodes.
pub(super) struct Investigations {
    sender: UnboundedSender<Found>,
    found: UnboundedReceiver<Found>,
    running: usize,
    waiting: VecDeque<(Box<EpisodeReport>, Vec<FdSample>)>,
    told: HashMap<About, Instant>,
    pace: census::Pace,
}

impl Investigations {
    pub(super) fn new() -> Self {
        let (sender, found) = mpsc::unbounded_channel();
        Self {
            sender,
            found,
            running: 0,
            waiting: VecDeque::new(),
            told: HashMap::new(),
            pace: census::Pace::default(),
        }
    }

    /// Looks into an episode that was just reported, if there is something to find out. `before` is
    /// asked how many descriptors its process had until then.
    pub(super) fn consider(
        &mut self,
        report: &EpisodeReport,
        before: impl FnOnce() -> Vec<FdSample>,
    ) {
        let is_time = match report.failure {
            // Who they are shows after a while.
            Failure::SynQueueFull | Failure::SynCookieSent => report.phase == Phase::Updated,
            Failure::Errno(_) | Failure::AcceptQueueFull { .. } => report.phase == Phase::Opened,
        };
        let is_worth_it = report.failure.is_exhaustion() || report.failure.is_refusal();
        if !is_time || !is_worth_it || self.waiting.len() >= MOST_WAITING || !self.is_new(report) {
            return;
        }
        self.waiting.push_back((Box::new(report.clone()), before()));
        self.go_on();
    }

    fn is_new(&mut self, report: &EpisodeReport) -> bool {
        let lead = report.owners.first().map(|owner| owner.id);
        let target = report.failure.is_refusal().then(|| report.target.clone());
        let about = (lead, target, report.failure);
        let now = Instant::now();
        if self.told.len() >= MOST_REMEMBERED {
            self.told.retain(|_, told| now.duration_since(*told) < AGAIN_AFTER);
        }
        let is_recent = |told: &Instant| now.duration_since(*told) < AGAIN_AFTER;
        if self.told.get(&about).is_some_and(is_recent) || self.told.len() >= MOST_REMEMBERED {
            return false;
        }
        self.told.insert(about, now);
        true
    }

    /// Starts what waits, as far as there is room.
    fn go_on(&mut self) {
        while self.running < MOST_AT_ONCE
            && let Some((report, before)) = self.waiting.pop_front()
        {
            let lead = report.owners.first().map(|owner| owner.id);
            let takes_census = report.failure.errno().is_some()
                && lead.is_some_and(|lead| self.pace.allows(Instant::now(), lead));
            self.running += 1;
            tokio::spawn(look(report, before, takes_census, self.sender.clone()));
        }
    }

    /// Waits for the next one that is done.
    pub(super) async fn next(&mut self) -> Option<Found> {
        let found = self.found.recv().await?;
        self.running -= 1;
        self.go_on();
        Some(found)
    }
}

/// Reads what there is to read.
async fn look(
    report: Box<EpisodeReport>,
    before: Vec<FdSample>,
    takes_census: bool,
    sender: UnboundedSender<Found>,
) {
    let lead = report.owners.first().map(|owner| owner.id);
    let is_call = report.failure.errno().is_some();
    let (mut of_limit, mut of_fds, mut of_threads) = (None, None, None);
    if let Some(lead) = lead {
        // All at once: each is a thread.
        let limit = is_call.then(|| provenance::start(PathBuf::from("/"), lead.pid));
        let fds = takes_census
            .then(|| census::start(PathBuf::from(PROC), lead, census::Budget::default()));
        let threads = acceptor::start(PathBuf::from(PROC), lead, acceptor::WINDOW);
        of_limit = answer(limit.and_then(started)).await;
        of_fds = answer(fds.and_then(started)).await;
        of_threads = answer(started(threads)).await;
    }
    let found =
        Found { report, before, provenance: of_limit, census: of_fds, acceptor: of_threads };
    // Nobody waits for it any more when fdtrace stops.
    let _ = sender.send(found);
}

fn started<T>(worker: io::Result<T>) -> Option<T> {
    worker.inspect_err(|error| log::debug!("cannot look into an episode: {error}")).ok()
}

async fn answer<T>(worker: Option<crate::enrich::Worker<T>>) -> Option<T> {
    let answer = worker?.answer().await;
    answer.inspect_err(|error| log::debug!("cannot look into an episode: {error}")).ok()
}

impl Found {
    /// What follows from it; `None` where nothing does.
    pub(super) fn diagnose(self, at: BootTime, own_netns: Option<u32>) -> Option<DiagnosisReport> {
        let Self { report, before, provenance, census, acceptor } = self;
        let diagnoses = diagnose::episode(&EpisodeFacts {
            report: &report,
            provenance: provenance.as_ref(),
            census: census.as_ref(),
            before: &before,
            acceptor: acceptor.as_ref(),
            own_netns,
        });
        if diagnoses.is_empty() {
            return None;
        }
        let EpisodeReport { owners, target, door, failure, .. } = *report;
        Some(DiagnosisReport { at, owners, target, door, failure, diagnoses })
    }
}
