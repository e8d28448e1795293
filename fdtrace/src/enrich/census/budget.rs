//! How long a census may take, and how often there may be one.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::model::ProcessId;

/// What a census may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Time of one core.
    pub cpu: Duration,
    /// Time that passes: where cores are busy, an answer that comes late is of no use.
    pub wall: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self { cpu: Duration::from_millis(50), wall: Duration::from_secs(1) }
    }
}

/// What was spent of a budget, by the thread that made it.
pub(super) struct Meter<'a> {
    budget: Budget,
    cpu_before: Duration,
    began: Instant,
    is_cancelled: &'a dyn Fn() -> bool,
}

impl<'a> Meter<'a> {
    pub(super) fn new(budget: Budget, is_cancelled: &'a dyn Fn() -> bool) -> Self {
        Self { budget, cpu_before: thread_cpu(), began: Instant::now(), is_cancelled }
    }

    /// Time of one core so far.
    pub(super) fn spent(&self) -> Duration {
        thread_cpu().saturating_sub(self.cpu_before)
    }

    /// What is left of so many percent of the budget.
    pub(super) fn left(&self, percent: u32) -> Duration {
        (self.budget.cpu * percent / 100).saturating_sub(self.spent())
    }

    /// Whether there is something left of so many percent of the budget.
    pub(super) fn is_within(&self, percent: u32) -> bool {
        let part = |whole: Duration| whole * percent / 100;
        !(self.is_cancelled)()
            && self.spent() < part(self.budget.cpu)
            && self.began.elapsed() < part(self.budget.wall)
    }
}

/// What the calling thread has used of a core since it began.
#[must_use]
pub fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    // It counts up from 0: neither part is ever negative.
    let seconds = Duration::from_secs(now.tv_sec.unsigned_abs());
    seconds + Duration::from_nanos(now.tv_nsec.unsigned_abs())
}

/// Says when there may be another census: of one process no more than one a minute, and of all
/// together no more than half a hundredth of one core. Whoever takes them on two occasions has two
/// of these.
#[derive(Debug, Default)]
pub struct Pace {
    /// Those of the last minute, the oldest first.
    taken: VecDeque<(Instant, ProcessId)>,
    rested: Option<Instant>,
}

impl Pace {
    const OF_ONE_PROCESS: Duration = Duration::from_secs(60);
    const REST_PER_COST: u32 = 200;
    /// Of more processes in a minute there is no census.
    const MOST: usize = 1024;

    /// Whether there may be one of this process now. If so, it is taken for made.
    pub fn allows(&mut self, now: Instant, process: ProcessId) -> bool {
        while self
            .taken
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) >= Self::OF_ONE_PROCESS)
        {
            self.taken.pop_front();
        }
        let is_rested = self.rested.is_none_or(|rested| now >= rested);
        let is_new = self.taken.iter().all(|(_, taken)| *taken != process);
        let allowed = is_rested && is_new && self.taken.len() < Self::MOST;
        if allowed {
            self.taken.push_back((now, process));
        }
        allowed
    }

    /// A census ended, and took so much time of one core.
    pub fn cost(&mut self, now: Instant, cost: Duration) {
        // Several may have ended at once.
        let from = self.rested.map_or(now, |rested| rested.max(now));
        self.rested = Some(from + cost.saturating_mul(Self::REST_PER_COST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BootTime, Pid};

    #[test]
    fn one_a_minute_of_each_and_little_of_a_core_of_all() {
        let id = |pid| ProcessId { pid: Pid(pid), started: BootTime::default() };
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        assert!(pace.allows(at(0), id(1)));
        assert!(!pace.allows(at(0), id(1)));
        assert!(pace.allows(at(0), id(2)), "nothing was spent yet");
        pace.cost(at(0), Duration::from_millis(20));
        pace.cost(at(0), Duration::from_millis(5));
        assert!(!pace.allows(at(4), id(3)));
        assert!(pace.allows(at(5), id(3)));
        assert!(!pace.allows(at(59), id(1)));
        assert!(pace.allows(at(60), id(1)));
        let many: Vec<_> = (10..3000).filter(|pid| pace.allows(at(61), id(*pid))).collect();
        assert_eq!(many.len(), Pace::MOST - 2, "two are of the last minute");
    }

    #[test]
    fn a_budget_is_spent_by_work_and_by_waiting() {
        let never = || false;
        let cpu = Duration::from_millis(5);
        let meter = Meter::new(Budget { cpu, wall: Duration::from_secs(60) }, &never);
        assert!(meter.is_within(100));
        while meter.is_within(40) {}
        assert!(meter.spent() >= cpu * 2 / 5 && meter.is_within(100_000));

        let wall = Duration::from_millis(5);
        let meter = Meter::new(Budget { cpu: Duration::from_secs(60), wall }, &never);
        std::thread::sleep(wall);
        assert!(!meter.is_within(100) && meter.spent() < wall);
        let cancelled = || true;
        assert!(!Meter::new(Budget::default(), &cancelled).is_within(100));
    }
}
