//! Several outputs at once. None of them ends the trace, or keeps the others from their reports.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io, mem,
    os::{
        fd::AsFd,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use anyhow::Context as _;
use rustix::fs::fstat;

use super::{file::LogFile, health::OutputState};
use crate::{
    cli::{self, OutputConfig, Stdout},
    model::{Report, WallClock},
    output::{self, Colour, Json, Queued, Sink, Terminal, WhenFull},
};

const STDOUT: &str = "stdout";

/// So much waits for whoever reads stdout, as for a full disk.
const MOST_WAITING: usize = 256 << 10;

/// And so long at the end.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Every output, for the trace to write to and for a reload to change.
#[derive(Clone)]
pub(super) struct Outputs(Rc<RefCell<All>>);

struct All {
    /// stdout and the journal.
    plain: Vec<Output<Box<dyn Sink>>>,
    file: Option<Output<Json<LogFile>>>,
    stdout: Queued,
    /// Reports lost by what was an output before a reload: a counter does not go back.
    lost_before: BTreeMap<&'static str, u64>,
}

/// One output, and how it fares.
struct Output<S> {
    name: &'static str,
    sink: S,
    failing: Option<String>,
    lost: u64,
    recheck: Option<Recheck>,
}

/// How an output fares, without a report to try it with.
enum Recheck {
    /// Whether one that fails would work again.
    Works(Box<dyn Fn() -> io::Result<()>>),
    /// One that takes every report, and writes later.
    Fares(Queued),
}

impl Outputs {
    /// Opens what the configuration asks for.
    pub(super) fn open(
        config: &OutputConfig,
        colour: Colour,
        journal: &Path,
    ) -> anyhow::Result<Self> {
        let file = config.json_file.as_deref().map(open_file).transpose()?;
        let stdout = Queued::new(io::stdout(), MOST_WAITING, WhenFull::Lose);
        let plain = plain(config, colour, journal, &stdout)?;
        let lost_before = BTreeMap::new();
        Ok(Self(Rc::new(RefCell::new(All { plain, file, stdout, lost_before }))))
    }

    /// At the end: what waits for a reader has this one moment.
    pub(super) fn finish(&self) {
        if let Err(error) = self.0.borrow().stdout.drain(Some(LAST_MOMENT)) {
            log::warn!("stdout: the last reports were not written: {error}");
        }
    }

    /// Opens what another configuration asks for; where that fails, everything stays as it was.
    pub(super) fn change(
        &self,
        config: &OutputConfig,
        colour: Colour,
        journal: &Path,
    ) -> anyhow::Result<()> {
        let mut all = self.0.borrow_mut();
        let plain = plain(config, colour, journal, &all.stdout)?;
        let has_it = |output: &mut Output<Json<LogFile>>| {
            Some(output.sink.writer_mut().path()) == config.json_file.as_deref()
        };
        let is_the_same = all.file.as_mut().is_some_and(has_it);
        if is_the_same && let Some(file) = &mut all.file {
            let result = file.sink.writer_mut().reopen();
            result.context("open output.json_file again")?;
        } else {
            let file = config.json_file.as_deref().map(open_file).transpose()?;
            if let Some(mut old) = mem::replace(&mut all.file, file) {
                *all.lost_before.entry(old.name).or_default() += old.sink.writer_mut().abandon();
            }
        }
        for old in mem::replace(&mut all.plain, plain) {
            *all.lost_before.entry(old.name).or_default() += old.lost;
        }
        Ok(())
    }

    /// Follows a rotated file, and writes what waits.
    pub(super) fn tick(&self) {
        let mut all = self.0.borrow_mut();
        let All { plain, file, .. } = &mut *all;
        for output in plain {
            output.recheck();
        }
        if let Some(file) = file {
            let result = file.sink.writer_mut().tick();
            file.note(result, false);
        }
    }

    /// How they fare.
    pub(super) fn states(&self) -> Vec<OutputState> {
        let mut all = self.0.borrow_mut();
        let All { plain, file, stdout, lost_before } = &mut *all;
        let mut lost = lost_before.clone();
        *lost.entry(STDOUT).or_default() += stdout.lost();
        let plain = plain.iter().map(|output| (output.name, &output.failing, output.lost));
        // What waits is not lost yet.
        let file =
            file.as_mut().map(|file| (file.name, &file.failing, file.sink.writer_mut().lost()));
        let states = plain.chain(file).map(|(name, failing, own)| {
            let lost = own + lost.remove(name).unwrap_or(0);
            OutputState { name, failing: failing.clone(), lost }
        });
        let mut states: Vec<_> = states.collect();
        let gone = lost.into_iter().filter(|(_, lost)| *lost > 0);
        states.extend(gone.map(|(name, lost)| OutputState { name, failing: None, lost }));
        states
    }
}

impl Sink for Outputs {
    fn write(&mut self, report: &Report, clock: &WallClock) -> io::Result<()> {
        let mut all = self.0.borrow_mut();
        for output in &mut all.plain {
            output.write(report, clock);
        }
        if let Some(file) = &mut all.file {
            file.write(report, clock);
        }
        Ok(())
    }
}

impl<S: Sink> Output<S> {
    const fn new(name: &'static str, sink: S) -> Self {
        Self { name, sink, failing: None, lost: 0, recheck: None }
    }

    fn write(&mut self, report: &Report, clock: &WallClock) {
        let result = self.sink.write(report, clock);
        match &self.recheck {
            // It took the report, and counts those that it loses.
            Some(Recheck::Fares(queued)) if result.is_ok() => self.note(queued.fares(), false),
            _ => self.note(result, true),
        }
    }

    /// Nobody may have anything to report for days.
    fn recheck(&mut self) {
        let result = match &self.recheck {
            Some(Recheck::Works(works)) if self.failing.is_some() => works(),
            Some(Recheck::Fares(queued)) => queued.fares(),
            Some(Recheck::Works(_)) | None => return,
        };
        self.note(result, false);
    }

    /// Says once that it fails, and once that it does not any more.
    fn note(&mut self, result: io::Result<()>, is_report: bool) {
        let name = self.name;
        match result {
            Ok(()) => {
                if self.failing.take().is_some() {
                    log::warn!("{name}: can be written again");
                }
            }
            Err(error) => {
                self.lost += u64::from(is_report);
                let error = error.to_string();
                if self.failing.is_none() {
                    log::error!("{name}: cannot be written: {error}. Counts go on");
                }
                self.failing = Some(error);
            }
        }
    }
}

fn open_file(path: &Path) -> anyhow::Result<Output<Json<LogFile>>> {
    let file = LogFile::open(path)
        .with_context(|| format!("output.json_file: cannot open {}", path.display()))?;
    Ok(Output::new("json_file", Json::new(file)))
}

fn plain(
    config: &OutputConfig,
    colour: Colour,
    socket: &Path,
    stdout: &Queued,
) -> anyhow::Result<Vec<Output<Box<dyn Sink>>>> {
    let journal = match config.journal {
        cli::Journal::Never => None,
        cli::Journal::Auto => connect(socket)
            .inspect_err(|error| log::debug!("no journal at {}: {error}", socket.display()))
            .ok(),
        cli::Journal::Always => Some(connect(socket).with_context(|| {
            format!("output.journal = \"always\": no journal at {}", socket.display())
        })?),
    };
    let mut outputs: Vec<Output<Box<dyn Sink>>> = Vec::new();
    let writer = stdout.clone();
    let sink: Option<Box<dyn Sink>> = match config.stdout {
        Stdout::None => None,
        // It would stand there twice.
        Stdout::Text if journal.is_some() && is_journal(io::stdout()) => None,
        Stdout::Text => Some(Box::new(Terminal::new(writer, colour))),
        Stdout::Json => Some(Box::new(Json::new(writer))),
    };
    let recheck = Some(Recheck::Fares(stdout.clone()));
    outputs.extend(sink.map(|sink| Output { recheck, ..Output::new(STDOUT, sink) }));
    if let Some(mut journal) = journal {
        let send = move |entry: &[u8]| journal.send(entry);
        let sink: Box<dyn Sink> = Box::new(output::Journal::new(send));
        let address = socket.to_owned();
        let recheck = Recheck::Works(Box::new(move || connect(&address).map(|_| ())));
        outputs.push(Output { recheck: Some(recheck), ..Output::new("journal", sink) });
    }
    Ok(outputs)
}

/// A socket to journald, which may be started anew.
struct ToJournal {
    socket: UnixDatagram,
    address: PathBuf,
}

fn connect(address: &Path) -> io::Result<ToJournal> {
    let socket = UnixDatagram::unbound()?;
    // It may not wait for a journal that is stuck.
    socket.set_nonblocking(true)?;
    // Only to know whether anybody is there: it is not connected to for good.
    UnixDatagram::unbound()?.connect_addr(&SocketAddr::from_pathname(address)?)?;
    Ok(ToJournal { socket, address: address.to_owned() })
}

impl ToJournal {
    fn send(&mut self, entry: &[u8]) -> io::Result<()> {
        self.socket.send_to(entry, &self.address).map(|_| ())
    }
}

/// Whether systemd has connected that stream to the journal (systemd.exec(5), JOURNAL_STREAM).
fn is_journal(stream: impl AsFd) -> bool {
    let said = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let of = |(device, inode): (&str, &str)| Some((device.parse().ok()?, inode.parse().ok()?));
    let said: Option<(u64, u64)> = said.split_once(':').and_then(of);
    said.is_some() && fstat(stream).ok().map(|stat| (stat.st_dev, stat.st_ino)) == said
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::{
        cli::Journal,
        model::{BootTime, Started},
    };

    fn report() -> (Report, WallClock) {
        let at = BootTime(Duration::from_secs(3));
        let started =
            Started { at, version: "0.1.0", kernel: "6.12".to_owned(), probes: Vec::new() };
        (Report::Started(started), WallClock { boot: at, wall: SystemTime::UNIX_EPOCH })
    }

    fn config(file: &Path) -> OutputConfig {
        let json_file = Some(file.to_owned());
        OutputConfig { stdout: Stdout::None, json_file, journal: Journal::Always }
    }

    #[test]
    fn every_output_gets_every_report() {
        let dir = tempfile::tempdir().unwrap();
        let (file, socket) = (dir.path().join("x.jsonl"), dir.path().join("journal"));
        let missing = Outputs::open(&config(&file), Colour::Never, &socket);
        let missing = missing.err().map(|error| format!("{error:#}")).unwrap();
        assert!(missing.contains("output.journal = \"always\": no journal at"), "{missing}");

        let received = UnixDatagram::bind(&socket).unwrap();
        let mut outputs = Outputs::open(&config(&file), Colour::Never, &socket).unwrap();
        let (report, clock) = report();
        outputs.write(&report, &clock).unwrap();
        let mut entry = [0; 4096];
        let length = received.recv(&mut entry).unwrap();
        let entry = String::from_utf8_lossy(&entry[..length]).into_owned();
        assert!(entry.contains("\nFDTRACE_KIND=started\n"), "{entry}");
        let lines = std::fs::read_to_string(&file).unwrap();
        assert!(lines.contains("\"kind\":\"started\"") && lines.ends_with("}\n"), "{lines}");

        // Another file from here on.
        let other = dir.path().join("y.jsonl");
        outputs.change(&config(&other), Colour::Never, &socket).unwrap();
        outputs.write(&report, &clock).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), lines);
        assert_eq!(std::fs::read_to_string(&other).unwrap(), lines);

        // One that cannot be opened changes nothing.
        let wrong = dir.path().join("not-there/z.jsonl");
        assert!(outputs.change(&config(&wrong), Colour::Never, &socket).is_err());
        outputs.write(&report, &clock).unwrap();
        assert_eq!(std::fs::read_to_string(&other).unwrap(), lines.repeat(2));

        // Nor does a journal that has gone stop anything.
        drop(received);
        outputs.write(&report, &clock).unwrap();
        let states = outputs.states();
        let journal = states.iter().find(|state| state.name == "journal").unwrap();
        assert!(journal.failing.is_some() && journal.lost == 1, "{states:?}");

        // What was lost stays so, whatever becomes of the output.
        let without =
            OutputConfig { stdout: Stdout::None, json_file: None, journal: Journal::Never };
        outputs.change(&without, Colour::Never, &socket).unwrap();
        let lost_by = |outputs: &Outputs| {
            let states = outputs.states().into_iter();
            states.map(|state| (state.name, state.lost)).collect::<Vec<_>>()
        };
        assert_eq!(lost_by(&outputs), [("journal", 1)]);
        let auto = OutputConfig { journal: Journal::Auto, ..config(&other) };
        outputs.change(&auto, Colour::Never, &socket).unwrap();
        assert_eq!(lost_by(&outputs), [("json_file", 0), ("journal", 1)]);
        std::fs::remove_file(&socket).unwrap();
        let received = UnixDatagram::bind(&socket).unwrap();
        outputs.change(&config(&other), Colour::Never, &socket).unwrap();
        assert_eq!(lost_by(&outputs), [("journal", 1), ("json_file", 0)]);
        drop(received);
        outputs.write(&report, &clock).unwrap();
        assert_eq!(lost_by(&outputs), [("journal", 2), ("json_file", 0)]);

        // It is there again before there is anything to say.
        outputs.tick();
        assert!(outputs.states().iter().any(|state| state.failing.is_some()));
        std::fs::remove_file(&socket).unwrap();
        let _received = UnixDatagram::bind(&socket).unwrap();
        outputs.tick();
        assert!(outputs.states().iter().all(|state| state.failing.is_none()));
    }

    #[test]
    fn a_failure_is_over_when_something_is_written() {
        struct Fails<'a>(&'a Cell<bool>);
        impl Sink for Fails<'_> {
            fn write(&mut self, _: &Report, _: &WallClock) -> io::Result<()> {
                if self.0.get() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            }
        }
        let fails = Cell::new(true);
        let mut output = Output::new("stdout", Fails(&fails));
        let (report, clock) = report();
        output.write(&report, &clock);
        output.write(&report, &clock);
        assert!(output.failing.is_some());
        fails.set(false);
        output.write(&report, &clock);
        assert_eq!((output.failing, output.lost), (None, 2));
    }
}
