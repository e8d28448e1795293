//! Finding out why an episode happens, beside the trace: what takes milliseconds to read is read on
//! threads of its own, and no failure waits for it.

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::{
    follow::{Due, Follow},
    host::{Live, PROC},
    told::{Round, Told},
};
use crate::{
    aggregate::Aggregator,
    diagnose::{self, EpisodeFacts, Lately},
    enrich::{acceptor, census, half_open, holdings, provenance},
    model::{
        Acceptor, BootTime, Ceiling, Census, DescriptorSource, Diagnosis, DiagnosisReport,
        EarlierCensus, EpisodeReport, Failure, FdSample, Known, OpenEpisode, PerUser, Phase,
        Process, ProcessId, Provenance, Resource, Target, UserHoldings, WarningReport,
    },
};

/// So many at once; the others wait their turn.
const MOST_AT_ONCE: usize = 4;
/// And so many wait. Of a host on which more processes fail than that, the first ones tell enough.
const MOST_WAITING: usize = 64;
/// Processes that are close to their limit, of each of which a census is kept.
const MOST_CLOSE: usize = 256;
/// Episodes that are remembered for that.
const MOST_REMEMBERED: usize = 4096;

/// What makes a diagnosis the same: a process has one limit, whatever call meets it.
type About = (Option<ProcessId>, Option<Target>, Failure);

/// What was found out about an episode.
pub(super) struct Found {
    job: Job,
    provenance: Option<Provenance>,
    held: Option<UserHoldings>,
    census: Option<Census>,
    acceptor: Option<Acceptor>,
}

/// An episode to look into.
struct Job {
    report: Box<EpisodeReport>,
    before: Vec<FdSample>,
    earlier: Option<Arc<EarlierCensus>>,
    lately: Lately,
    /// How often it was looked at before.
    round: Round,
}

/// Something that was read, on a thread of its own.
enum Done {
    /// About an episode.
    Episode(Box<Found>),
    /// What a process has open that is close to its limit; `None` where nobody may look.
    Close(ProcessId, Option<Arc<EarlierCensus>>),
}

/// Looking into episodes.
pub(super) struct Investigations {
    sender: UnboundedSender<Done>,
    done: UnboundedReceiver<Done>,
    running: usize,
    waiting: VecDeque<Job>,
    told: HashMap<About, Told>,
    follow: Follow,
    /// Censuses at failures,
    pace: census::Pace,
    /// and those before them, at warnings.
    pace_of_warnings: census::Pace,
    close: HashMap<ProcessId, Option<Arc<EarlierCensus>>>,
    /// What tells what a process has open, where the kernel allows it.
    source: Option<Arc<dyn DescriptorSource>>,
}

impl Investigations {
    pub(super) fn new(source: Option<Arc<dyn DescriptorSource>>) -> Self {
        let (sender, done) = mpsc::unbounded_channel();
        Self {
            sender,
            done,
            running: 0,
            waiting: VecDeque::new(),
            told: HashMap::new(),
            follow: Follow::default(),
            pace: census::Pace::default(),
            pace_of_warnings: census::Pace::default(),
            close: HashMap::new(),
            source,
        }
    }

    /// Has a process looked at when it is first close to its limit: what has become more when it
    /// fails tells a leak from load.
    pub(super) fn warned(&mut self, warning: &WarningReport) {
        let Resource::Fds(_) = warning.resource else { return };
        let Some(id) = warning.owners.first().map(|owner| owner.id) else { return };
        if warning.warning.outcome.is_some()
            || self.close.contains_key(&id)
            || self.close.len() >= MOST_CLOSE
            || !self.pace_of_warnings.allows(Instant::now(), id)
        {
            return;
        }
        self.close.insert(id, None);
        let (at, sender, source) = (warning.at, self.sender.clone(), self.source.clone());
        tokio::spawn(async move {
            let budget = census::Budget::default();
            let census = census::start(PathBuf::from(PROC), source, id, budget);
            let census = answer(started(census)).await;
            let earlier = census.map(|census| Arc::new(EarlierCensus { at, census }));
            let _ = sender.send(Done::Close(id, earlier));
        });
    }

    /// Forgets those that are not close to their limit any more.
    pub(super) fn forget(&mut self, is_close: impl Fn(ProcessId) -> bool) {
        self.close.retain(|id, _| is_close(*id));
    }

    /// Looks into an episode that was just reported, if there is something to find out, now and
    /// later. `before` is asked how many descriptors its process had until then.
    pub(super) fn consider(
        &mut self,
        report: &EpisodeReport,
        host: &mut Live,
        before: impl Fn(ProcessId) -> Vec<FdSample>,
    ) {
        if let Some(overflow) = self.follow.take(report) {
            let lately = self.follow.at_once(&overflow);
            self.look(overflow, lately, Round::Again, &before);
        }
        let is_worth_it = report.failure.is_exhaustion() || report.failure.is_refusal();
        if report.phase != Phase::Opened || !is_worth_it || !self.is_new(report) {
            return;
        }
        self.follow.begin(report, host);
        // Who they are shows after a while.
        if !is_about_syns(report.failure) {
            let lately = self.follow.at_once(report);
            self.look(Box::new(report.clone()), lately, Round::First, before);
        }
    }

    /// Looks again at what lasts: to be called about once a second.
    pub(super) fn tick(
        &mut self,
        now: BootTime,
        aggregator: &Aggregator,
        host: &mut Live,
        before: impl Fn(ProcessId) -> Vec<FdSample>,
    ) {
        for Due { report, lately, is_last } in self.follow.tick(now, aggregator, host) {
            let round = if is_last { Round::Last } else { Round::Again };
            self.look(report, lately, round, &before);
        }
    }

    /// Looks into an episode as soon as there is room.
    fn look(
        &mut self,
        report: Box<EpisodeReport>,
        lately: Lately,
        round: Round,
        before: impl Fn(ProcessId) -> Vec<FdSample>,
    ) {
        if self.waiting.len() < MOST_WAITING {
            let lead = report.owners.first().map(|owner| owner.id);
            let earlier = lead.and_then(|lead| self.close.get(&lead)?.clone());
            let before = lead.map(before).unwrap_or_default();
            self.waiting.push_back(Job { report, before, earlier, lately, round });
            self.go_on();
        }
    }

    /// Why an episode like that happens, where that was told.
    pub(super) fn cause(&self, report: &EpisodeReport) -> Option<Known> {
        let told = self.told.get(&about(report))?;
        told.cause().filter(|_| told.is_recent() || report.phase != Phase::Opened)
    }

    /// The cause of an episode that is open, where that was told.
    pub(super) fn cause_of(&self, open: &OpenEpisode) -> Option<Known> {
        self.told.get(&key(&open.owners, &open.target, open.failure))?.cause()
    }

    fn is_new(&mut self, report: &EpisodeReport) -> bool {
        let now = Instant::now();
        if self.told.len() >= MOST_REMEMBERED {
            self.told.retain(|_, told| told.is_recent());
        }
        let about = about(report);
        if self.told.get(&about).is_some_and(Told::is_recent)
            || self.told.len() >= MOST_REMEMBERED
            || self.waiting.len() >= MOST_WAITING
        {
            return false;
        }
        self.told.insert(about, Told::nothing(now));
        true
    }

    /// Starts what waits, as far as there is room.
    fn go_on(&mut self) {
        while self.running < MOST_AT_ONCE
            && let Some(job) = self.waiting.pop_front()
        {
            let lead = job.report.owners.first().map(|owner| owner.id);
            // Where there were too many at first, there may be one now.
            let had_census = self.told.get(&about(&job.report)).is_some_and(Told::had_census);
            let takes_census = !had_census
                && job.report.failure.errno().is_some()
                && lead.is_some_and(|lead| self.pace.allows(Instant::now(), lead));
            self.running += 1;
            let source = self.source.clone();
            tokio::spawn(look(job, takes_census, source, self.sender.clone()));
        }
    }

    /// Waits for the next one that is done.
    pub(super) async fn next(&mut self) -> Option<Found> {
        loop {
            match self.done.recv().await? {
                Done::Episode(found) => {
                    if let Some(census) = &found.census {
                        self.pace.cost(Instant::now(), census.cost);
                    }
                    self.running -= 1;
                    self.go_on();
                    return Some(*found);
                }
                Done::Close(id, earlier) => {
                    if let Some(earlier) = &earlier {
                        self.pace_of_warnings.cost(Instant::now(), earlier.census.cost);
                    }
                    // Unless it is over already.
                    if let Some(known) = self.close.get_mut(&id) {
                        *known = earlier;
                    }
                }
            }
        }
    }

    /// What follows from what was found; `None` where nothing new does.
    pub(super) fn conclude(
        &mut self,
        found: Found,
        at: BootTime,
        own_netns: Option<u32>,
    ) -> Option<DiagnosisReport> {
        let round = found.job.round;
        let has_census = found.census.is_some();
        let diagnoses = found.diagnoses(own_netns);
        let report = found.job.report;
        let told = self.told.get_mut(&about(&report))?;
        if has_census {
            told.take_census();
        }
        let diagnoses = told.take(diagnoses, report.failure, round);
        diagnoses.first()?;
        Some(DiagnosisReport { at, episode: *report, diagnoses })
    }
}

fn about(report: &EpisodeReport) -> About {
    key(&report.owners, &report.target, report.failure)
}

fn key(owners: &[Process], target: &Target, failure: Failure) -> About {
    // The owners of a queue may be found out late.
    let lead = owners.first().filter(|_| failure.errno().is_some());
    let target = failure.is_refusal().then(|| target.clone());
    (lead.map(|owner| owner.id), target, failure)
}

const fn is_about_syns(failure: Failure) -> bool {
    matches!(failure, Failure::SynQueueFull | Failure::SynCookieSent)
}

/// Reads what there is to read.
async fn look(
    mut job: Job,
    takes_census: bool,
    source: Option<Arc<dyn DescriptorSource>>,
    sender: UnboundedSender<Done>,
) {
    let report = &job.report;
    let lead = report.owners.first().map(|owner| owner.id);
    let is_call = report.failure.errno().is_some() && job.round == Round::First;
    let is_queue = matches!(report.failure, Failure::AcceptQueueFull { .. });
    let (mut of_limit, mut of_user, mut of_fds, mut of_threads) = (None, None, None, None);
    if is_about_syns(report.failure) {
        let listener = report.target.listener();
        let place = listener.and_then(|listener| listener.netns.zip(listener.address.port()));
        if let Some((lead, (netns, port))) = lead.zip(place) {
            let half_open = half_open(PathBuf::from(PROC), netns, lead.pid, port);
            job.lately.half_open = answer(started(half_open)).await;
        }
    } else if let Some(lead) = lead {
        // All at once: each is a thread.
        let limit = (is_call || is_queue).then(|| provenance::start(PathBuf::from("/"), lead.pid));
        let per_user = per_user(report).filter(|_| is_call);
        let user = per_user.map(|what| holdings(PathBuf::from(PROC), lead.pid, what));
        let fds = takes_census
            .then(|| census::start(PathBuf::from(PROC), source, lead, census::Budget::default()));
        let threads = acceptor::start(PathBuf::from(PROC), lead, acceptor::WINDOW);
        of_limit = answer(limit.and_then(started)).await;
        of_user = answer(user.and_then(started)).await;
        of_fds = answer(fds.and_then(started)).await;
        of_threads = answer(started(threads)).await;
    }
    let found =
        Found { job, provenance: of_limit, held: of_user, census: of_fds, acceptor: of_threads };
    // Nobody waits for it any more when fdtrace stops.
    let _ = sender.send(Done::Episode(Box::new(found)));
}

/// What ran out, where it is counted for each user.
const fn per_user(report: &EpisodeReport) -> Option<PerUser> {
    match report.ceiling {
        Some(Ceiling::InotifyInstances(_)) => Some(PerUser::InotifyInstances),
        Some(Ceiling::PipePages(_)) => Some(PerUser::Pipes),
        _ => None,
    }
}

fn started<T>(worker: io::Result<T>) -> Option<T> {
    worker.inspect_err(|error| log::debug!("cannot look into an episode: {error}")).ok()
}

async fn answer<T>(worker: Option<crate::enrich::Worker<T>>) -> Option<T> {
    let answer = worker?.answer().await;
    answer.inspect_err(|error| log::debug!("cannot look into an episode: {error}")).ok()
}

impl Found {
    fn diagnoses(&self, own_netns: Option<u32>) -> Vec<Diagnosis> {
        let Self { job, provenance, held, census, acceptor } = self;
        diagnose::episode(&EpisodeFacts {
            report: &job.report,
            provenance: provenance.as_ref(),
            held: held.as_ref(),
            census: census.as_ref(),
            before: &job.before,
            earlier: job.earlier.as_deref(),
            acceptor: acceptor.as_ref(),
            lately: &job.lately,
            own_netns,
        })
    }
}

#[cfg(test)]
mod tests;
