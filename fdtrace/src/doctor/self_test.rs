//! The self-test: a child fails on purpose and counts; fdtrace's counts must be equal to that.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{
    cli::SELF_TEST,
    decode,
    kernel::Kernel,
    model::{Check, Errno, Event, Failure, FailureEvent, Pid, SelfTest},
};

/// How long the last counts may take: a client's SYN is handled in softirq, in its own time.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the child counted: calls by their door, and what fdtrace calls the failure.
const KINDS: [(&str, &str); 6] = [
    ("accept", "EMFILE"),
    ("accept4", "EMFILE"),
    ("socket", "EMFILE"),
    ("socketpair", "EMFILE"),
    ("openat", "EMFILE"),
    ("syn", "accept_queue_full"),
];

/// Runs it.
pub(super) fn run(kernel: &mut Kernel) -> anyhow::Result<SelfTest> {
    let start = Instant::now();
    let mut child = Misbehaving::start()?;
    let ready = Ready::parse(&child.line()?)?;
    let pid = Pid(child.child.id());
    child.go()?;
    let made = parse_done(&child.line()?)?;

    let mut slots = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    let checks = loop {
        kernel.drain(|bytes| {
            if let Ok(Event::Failure(event)) = decode::record(bytes)
                && is_ours(&event, pid, &ready)
            {
                slots.insert(event.key.slot, (event.door.name(), event.failure));
            }
        });
        let checks = compare(&made, kernel, &slots);
        if checks.iter().all(Check::is_exact) || Instant::now() > deadline {
            break checks;
        }
        thread::sleep(Duration::from_millis(1));
    };
    Ok(SelfTest { own_namespace: ready.own_namespace, took: start.elapsed(), checks })
}

fn is_ours(event: &FailureEvent, pid: Pid, ready: &Ready) -> bool {
    ready.listeners.contains(&event.key.inode)
        || event.caller.as_ref().is_some_and(|caller| caller.process.pid == pid)
}

fn compare(
    made: &BTreeMap<String, u64>,
    kernel: &Kernel,
    slots: &BTreeMap<u32, (&'static str, Failure)>,
) -> Vec<Check> {
    let is_attached = |probe: &str| {
        let probes = kernel.probes().iter();
        probes.clone().any(|attached| attached.probe == probe && !attached.points.is_empty())
    };
    let check = |(door, failure): (&'static str, &'static str)| {
        let probe = match door {
            "accept4" => "accept",
            "openat" => "fds",
            door => door,
        };
        let seen = || {
            let of_kind = slots.iter().filter(|(_, (on, why))| *on == door && is(*why, failure));
            of_kind.map(|(slot, _)| kernel.count(*slot).total).sum()
        };
        let made = made.get(door).copied().unwrap_or(0);
        Check { door, failure, made, seen: is_attached(probe).then(seen) }
    };
    KINDS.into_iter().map(check).collect()
}

fn is(failure: Failure, name: &str) -> bool {
    match failure {
        Failure::Errno(errno) => errno == Errno::EMFILE && name == "EMFILE",
        Failure::AcceptQueueFull { .. } => name == "accept_queue_full",
        Failure::SynQueueFull | Failure::SynCookieSent => false,
    }
}

/// The child. It ends when its stdin does.
struct Misbehaving {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Misbehaving {
    fn start() -> anyhow::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg(SELF_TEST)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start a child")?;
        let stdout = child.stdout.take().context("the child has no stdout")?;
        Ok(Self { child, stdout: BufReader::new(stdout) })
    }

    fn go(&mut self) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("the child has no stdin")?;
        stdin.write_all(b"go\n").context("talk to the child")
    }

    /// The next line. The child ends by itself where it takes too long, and then there is none.
    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("listen to the child")?;
        match line.trim_end() {
            "" => bail!("the child ended, or took too long"),
            line => match line.strip_prefix("failed ") {
                Some(why) => bail!("the child could not do it: {why}"),
                None => Ok(line.to_owned()),
            },
        }
    }
}

impl Drop for Misbehaving {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends at once; where it does not, its own alarm ends it.
        let _ = self.child.wait();
    }
}

/// What the child says before it fails.
#[derive(Debug, PartialEq, Eq)]
struct Ready {
    listeners: Vec<u64>,
    own_namespace: Result<(), String>,
}

impl Ready {
    /// `ready 81 82 own`, `ready 81 82 host Operation not permitted`
    fn parse(line: &str) -> anyhow::Result<Self> {
        let wrong = || format!("the child said {line:?}");
        let mut words = line.splitn(5, ' ');
        if words.next() != Some("ready") {
            bail!(wrong());
        }
        let mut inode = || words.next().and_then(|word| word.parse().ok()).with_context(wrong);
        let listeners = vec![inode()?, inode()?];
        let own_namespace = match words.next() {
            Some("own") => Ok(()),
            Some("host") => Err(words.next().unwrap_or("unknown").to_owned()),
            _ => bail!(wrong()),
        };
        Ok(Self { listeners, own_namespace })
    }
}

/// `done accept=101 syn=7`
fn parse_done(line: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let wrong = || format!("the child said {line:?}");
    let rest = line.strip_prefix("done ").with_context(wrong)?;
    let pair = |pair: &str| {
        let (door, count) = pair.split_once('=').with_context(wrong)?;
        Ok((door.to_owned(), count.parse().with_context(wrong)?))
    };
    rest.split(' ').map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_child_says() {
        let ready = |own_namespace| Ready { listeners: vec![81, 82], own_namespace };
        assert_eq!(Ready::parse("ready 81 82 own").unwrap(), ready(Ok(())));
        let why = "Operation not permitted (os error 1)";
        let line = format!("ready 81 82 host {why}");
        assert_eq!(Ready::parse(&line).unwrap(), ready(Err(why.to_owned())));
        let done = parse_done("done accept=101 syn=7").unwrap();
        assert_eq!(done, [("accept".to_owned(), 101), ("syn".to_owned(), 7)].into());
        for line in ["", "ready", "ready 81 own", "ready 81 x own", "ready 81 82 mars", "done"] {
            assert!(Ready::parse(line).is_err(), "{line}");
        }
        for line in ["", "done", "done accept", "done accept=x", "ready 81 82 own"] {
            assert!(parse_done(line).is_err(), "{line}");
        }
    }
}
