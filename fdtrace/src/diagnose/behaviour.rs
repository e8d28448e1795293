//! What an acceptor does about its failures, or what keeps it from accepting.

use std::time::Duration;

use crate::model::{
    Acceptor, Behaviour, BootTime, FailureSample, QueueSample, Thread, ThreadState,
};

/// A failed call costs a fifth of a microsecond: nobody who waits in between makes so many.
const BUSY_PER_SECOND: f64 = 1000.0;
/// One core, but for what the rest of the host takes of it.
pub(super) const WHOLE_CORE: f64 = 0.9;
/// And there is no pause so long.
const STORM: Duration = Duration::from_secs(1);
/// No program known waits longer than a second before it tries again.
const GAVE_UP: Duration = Duration::from_secs(10);

/// What is known of an acceptor.
#[derive(Clone, Copy, Debug, Default)]
pub struct AcceptFacts<'a> {
    /// Its threads.
    pub acceptor: Option<&'a Acceptor>,
    /// Its failures, the oldest first, each sample where the count had changed: the records of one
    /// key are at least 100 ms apart.
    pub failures: &'a [FailureSample],
    /// Its listener's queue, the oldest first.
    pub queue: &'a [QueueSample],
    /// Now.
    pub now: BootTime,
    /// Whether no other process accepts from that queue; `None` where unknown.
    pub is_alone: Option<bool>,
}

/// Says what an acceptor does; `None` where nothing stands out, or nobody can say.
#[must_use]
pub fn behaviour(facts: &AcceptFacts<'_>) -> Option<Behaviour> {
    let stands = facts.acceptor.and_then(standstill);
    let of_failures = || busy(facts).or_else(|| waits(facts.failures)).or_else(|| drains(facts));
    // While it still fails, it still tries.
    let is_failing = facts.failures.last().is_some_and(|last| facts.now.since(last.at) < GAVE_UP);
    let of_failures = if is_failing { of_failures() } else { None };
    stands.or(of_failures).or_else(|| facts.acceptor.and_then(cpu_bound)).or_else(|| gave_up(facts))
}

/// Whether it stands still, and in what.
fn standstill(acceptor: &Acceptor) -> Option<Behaviour> {
    let alive: Vec<&Thread> = acceptor.alive().collect();
    if alive.is_empty() {
        return None;
    }
    let all = |is: &dyn Fn(&Thread) -> bool| alive.iter().all(|thread| is(thread));
    if all(&|thread| thread.state == ThreadState::Stopped) {
        return Some(Behaviour::Stopped);
    }
    let is_traced = |thread: &Thread| thread.state == ThreadState::Traced;
    // strace stops a thread for moments, a debugger for as long as somebody thinks.
    if all(&|thread| is_traced(thread) && thread.is_steady && thread.cpu.unwrap_or(0.0) == 0.0) {
        return Some(Behaviour::Traced { by: acceptor.tracer });
    }
    if all(&Thread::is_frozen) {
        return Some(Behaviour::Frozen);
    }
    let is_blocked = |thread: &Thread| {
        thread.state == ThreadState::Uninterruptible
            && thread.is_steady
            && thread.cpu.unwrap_or(0.0) < 0.1
    };
    // With threads besides, another one may accept.
    match &alive[..] {
        [thread] if acceptor.is_complete() && is_blocked(thread) => Some(Behaviour::Blocked {
            tid: thread.tid,
            comm: thread.comm.clone(),
            wchan: thread.wchan.clone(),
        }),
        _ => None,
    }
}

/// One thread uses a core up.
fn cpu_bound(acceptor: &Acceptor) -> Option<Behaviour> {
    // The busiest come first.
    let mut busiest = acceptor.threads.iter();
    let (first, second) = (busiest.next()?, busiest.next());
    let cpu = first.cpu?;
    let is_alone = second.and_then(|second| second.cpu).unwrap_or(0.0) < 0.5;
    (cpu >= WHOLE_CORE && is_alone && acceptor.is_complete()).then(|| Behaviour::CpuBound {
        tid: first.tid,
        comm: first.comm.clone(),
        cpu,
    })
}

fn busy(facts: &AcceptFacts<'_>) -> Option<Behaviour> {
    let (first, last) = (facts.failures.first()?, facts.failures.last()?);
    let lasting = last.at.since(first.at);
    #[expect(clippy::cast_precision_loss, reason = "no storm makes 2^53 failures")]
    let failed = last.count.saturating_sub(first.count) as f64;
    let per_second = failed / lasting.as_secs_f64();
    let cpu = facts.acceptor.and_then(|acceptor| acceptor.threads.first()?.cpu);
    // It does so now: a storm that is over was something else.
    if facts.now.since(last.at) >= STORM {
        return None;
    }
    // A flood of clients makes many failures too, of an acceptor that sleeps in between.
    let is_idle = cpu.is_some_and(|cpu| cpu < 0.1);
    (lasting >= Duration::from_millis(100) && per_second >= BUSY_PER_SECOND && !is_idle)
        .then_some(Behaviour::BusyLoop { per_second, cpu })
}

/// Pauses between failures: Go's net/http doubles them from 5 ms up to a second, Python's asyncio
/// makes them a second long, nginx half a second.
fn waits(failures: &[FailureSample]) -> Option<Behaviour> {
    const LEAST_PAUSES: usize = 4;
    let pauses: Vec<Duration> = failures
        .windows(2)
        .filter_map(|pair| {
            let more = u32::try_from(pair[1].count.checked_sub(pair[0].count)?).ok()?;
            pair[1].at.since(pair[0].at).checked_div(more)
        })
        .collect();
    let (first, longest) = (*pauses.first()?, *pauses.iter().max()?);
    let is_in = |pause: Duration, from: f64, to: f64| {
        let ratio = pause.as_secs_f64() / longest.as_secs_f64().max(f64::MIN_POSITIVE);
        (from..=to).contains(&ratio)
    };
    let waited = (Duration::from_millis(200)..=Duration::from_secs(2)).contains(&longest);
    if pauses.len() < LEAST_PAUSES || !waited {
        return None;
    }
    if pauses.iter().all(|pause| is_in(*pause, 0.8, 1.0)) {
        return Some(Behaviour::Pausing { pause: longest });
    }
    // Never shorter again, but for what a scheduler makes of it.
    let grows = pauses.windows(2).all(|pair| pair[1] >= pair[0].mul_f64(0.8));
    (grows && is_in(first, 0.0, 0.35)).then_some(Behaviour::BackingOff { longest })
}

/// Whether the queue stays empty though every call fails.
fn drains(facts: &AcceptFacts<'_>) -> Option<Behaviour> {
    const LEAST: usize = 3;
    let (first, last) = (facts.failures.first()?, facts.failures.last()?);
    // Each failure but the first came with a client of its own, or from trying once more than there
    // are clients. With three looks a second apart, somebody takes them.
    let during = facts.queue.iter().filter(|sample| sample.at >= first.at && sample.at <= last.at);
    let lengths: Vec<u32> = during.map(|sample| sample.length).collect();
    let is_empty = lengths.len() >= LEAST && lengths.iter().all(|length| *length == 0);
    let is_repeated = last.count.saturating_sub(first.count) >= LEAST as u64;
    (is_empty && is_repeated && facts.is_alone == Some(true))
        .then_some(Behaviour::DrainsWhileFailing)
}

/// Whether its failures have ended, and its queue does not become shorter.
fn gave_up(facts: &AcceptFacts<'_>) -> Option<Behaviour> {
    let silent = facts.now.since(facts.failures.last()?.at);
    let since = facts.queue.iter().filter(|sample| facts.now.since(sample.at) < silent);
    let lengths: Vec<u32> = since.map(|sample| sample.length).collect();
    let (first, last) = (*lengths.first()?, *lengths.last()?);
    let is_waiting = lengths.len() >= 3 && first > 0 && last >= first;
    let never_shorter = lengths.windows(2).all(|pair| pair[1] >= pair[0]);
    let is_idle = facts
        .acceptor
        .is_none_or(|acceptor| acceptor.alive().all(|thread| thread.cpu.unwrap_or(0.0) < 0.1));
    (silent >= GAVE_UP && is_waiting && never_shorter && is_idle)
        .then_some(Behaviour::GaveUp { silent })
}

#[cfg(test)]
mod tests;
