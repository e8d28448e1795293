//! What an fdtrace takes while it runs: memory, descriptors, time on a CPU.

use std::{
    fmt, fs, thread,
    time::{Duration, Instant},
};

/// A line of the totals and what belongs to it takes no more.
const KIB_PER_LINE: usize = 4;
/// What comes and goes, and what threads that come once keep: a page of metrics, a census.
const KIB_OF_NOISE: u64 = 8192;

/// At one time.
#[derive(Clone, Copy)]
struct Usage {
    at: Duration,
    rss_kib: u64,
    fds: usize,
    cpu: Duration,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, rss_kib, fds, cpu } = self;
        write!(f, "{at:7.1?}: {rss_kib} KiB resident, {fds} descriptors, {cpu:.2?} on a CPU")
    }
}

impl Usage {
    fn of(pid: u32, at: Duration) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(Result::ok);
        let times = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
        });
        let rss_kib = rss.split_whitespace().next().unwrap().parse().unwrap();
        Self { at, rss_kib, fds, cpu: times.sum() }
    }
}

/// A process, from its first look on.
pub(super) struct Watched {
    pid: u32,
    /// The most lines its totals have.
    most_lines: usize,
    usages: Vec<Usage>,
}

impl Watched {
    pub(super) const fn new(pid: u32, most_lines: usize) -> Self {
        Self { pid, most_lines, usages: Vec::new() }
    }

    pub(super) fn look(&mut self, at: Duration) {
        self.usages.push(Usage::of(self.pid, at));
    }

    /// Fails where descriptors stay open. The counters of a namespace are open until somebody has
    /// looked whether it is still there.
    pub(super) fn assert_lets_go(&self) {
        let begun = Instant::now();
        let fds = || Usage::of(self.pid, Duration::ZERO).fds;
        while fds() > self.usages[0].fds + 8 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} descriptors are open", fds());
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Fails where memory grows in the second half, but for the lines of the totals that came in it:
    /// so many a look, until there are as many as there may be.
    pub(super) fn assert_steady(&self, lines_a_look: usize) {
        let half = self.usages.len() / 2;
        let (first, last) = (self.usages[half], self.usages[self.usages.len() - 1]);
        let lines = |looks: usize| (looks * lines_a_look).min(self.most_lines);
        let came = (lines(self.usages.len()) - lines(half)) * KIB_PER_LINE;
        let most = first.rss_kib + u64::try_from(came).unwrap() + KIB_OF_NOISE;
        assert!(last.rss_kib <= most, "{first}; {last}");
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = self.usages.iter().step_by(self.usages.len().div_ceil(10));
        some.chain(self.usages.last()).try_for_each(|usage| writeln!(f, "    {usage}"))
    }
}
