//! Writing that waits for nobody. Whoever reads a pipe or a terminal may stop to, and what is counted is
//! looked at all the same: a thread writes, and what it has not written yet waits in memory.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// A write that takes longer has no reader.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where there is no more room for what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The one who writes waits as well.
    Wait,
    /// Reports are not written, and counted.
    Lose,
}

/// A writer that hands over to a thread. Each `write` is one report. The thread starts with the first.
#[derive(Clone)]
pub struct Queued(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
    when_full: WhenFull,
}

struct State {
    /// Until the thread has it.
    writer: Option<Box<dyn Write + Send>>,
    waiting: Vec<u8>,
    /// How many reports wait.
    reports: u64,
    /// Since when the thread writes what it writes.
    busy: Option<Instant>,
    /// Reports were lost, and nothing was read up since.
    is_behind: bool,
    lost: u64,
    failed: Option<io::Error>,
}

impl Queued {
    /// Up to `most` bytes wait; one report may be larger.
    pub fn new(writer: impl Write + Send + 'static, most: usize, when_full: WhenFull) -> Self {
        let state = State {
            writer: Some(Box::new(writer)),
            waiting: Vec::new(),
            reports: 0,
            busy: None,
            is_behind: false,
            lost: 0,
            failed: None,
        };
        let changed = Condvar::new();
        Self(Arc::new(Shared { state: Mutex::new(state), changed, most, when_full }))
    }

    /// Why nothing can be written now.
    pub fn fares(&self) -> io::Result<()> {
        let state = self.0.state();
        if let Some(error) = &state.failed {
            return Err(same(error));
        }
        if state.is_behind || state.busy.is_some_and(|since| since.elapsed() > PATIENCE) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads it"));
        }
        Ok(())
    }

    /// Reports that were not written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.state().lost
    }

    /// Waits until all is written, but no longer than that.
    pub fn drain(&self, patience: Option<Duration>) -> io::Result<()> {
        let begun = Instant::now();
        let mut state = self.0.state();
        while state.failed.is_none() && (state.busy.is_some() || !state.waiting.is_empty()) {
            let left = patience.map(|patience| patience.saturating_sub(begun.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads it"));
            }
            state = self.0.wait(state, left);
        }
        state.failed.take().map_or(Ok(()), Err)
    }
}

impl Write for Queued {
    fn write(&mut self, report: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        if let Some(writer) = state.writer.take() {
            let shared = Arc::clone(&self.0);
            let thread = thread::Builder::new().name("fdtrace-output".to_owned());
            thread.spawn(move || shared.run(writer))?;
        }
        while !state.waiting.is_empty() && state.waiting.len() + report.len() > self.0.most {
            if self.0.when_full == WhenFull::Lose {
                state.lost += 1;
                state.is_behind = true;
                return Ok(report.len());
            }
            state = self.0.wait(state, None);
        }
        if self.0.when_full == WhenFull::Wait
            && let Some(error) = state.failed.take()
        {
            return Err(error);
        }
        state.waiting.extend_from_slice(report);
        state.reports += 1;
        self.0.changed.notify_all();
        Ok(report.len())
    }

    /// All is on its way.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        patience: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        match patience {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                let waited = self.changed.wait_timeout(state, patience);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Writes for ever.
    fn run(&self, mut writer: Box<dyn Write + Send>) {
        let mut state = self.state();
        loop {
            if state.waiting.is_empty() {
                state.is_behind = false;
                state = self.wait(state, None);
                continue;
            }
            let waiting = mem::take(&mut state.waiting);
            let reports = mem::take(&mut state.reports);
            state.busy = Some(Instant::now());
            drop(state);
            let result = writer.write_all(&waiting).and_then(|()| writer.flush());
            state = self.state();
            state.busy = None;
            state.lost += if result.is_ok() { 0 } else { reports };
            state.failed = result.err();
            self.changed.notify_all();
        }
    }
}

/// An error says the same to everybody who asks.
fn same(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(
        || io::Error::new(error.kind(), error.to_string()),
        io::Error::from_raw_os_error,
    )
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Read as _};

    use super::*;

    const LINE: &[u8] = &[b'x'; 1024];

    /// More than a pipe takes.
    fn write_much(queued: &mut Queued) {
        for _ in 0..256 {
            assert_eq!(queued.write(LINE).unwrap(), LINE.len());
        }
    }

    #[test]
    fn what_nobody_reads_is_counted_and_the_rest_comes_whole() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut queued = Queued::new(writer, 64 << 10, WhenFull::Lose);
        write_much(&mut queued);
        // The pipe has taken what it can.
        thread::sleep(Duration::from_millis(50));
        write_much(&mut queued);
        let lost = queued.lost();
        assert!(lost > 256, "{lost} of 512 lost");
        assert_eq!(queued.fares().unwrap_err().to_string(), "nobody reads it");
        let late = queued.drain(Some(Duration::from_millis(10)));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let mut read = vec![0; (512 - usize::try_from(lost).unwrap()) * LINE.len()];
        reader.read_exact(&mut read).unwrap();
        queued.drain(None).unwrap();
        while queued.fares().is_err() {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(queued.write(b"again").unwrap(), 5);
        queued.drain(None).unwrap();
        let mut read = [0; 5];
        reader.read_exact(&mut read).unwrap();
        assert_eq!((&read, queued.lost()), (b"again", lost));
    }

    #[test]
    fn one_who_waits_loses_nothing() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut queued = Queued::new(writer, 64 << 10, WhenFull::Wait);
        let reader = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            let mut read = vec![0; 256 * LINE.len()];
            reader.read_exact(&mut read).unwrap();
        });
        write_much(&mut queued);
        queued.drain(None).unwrap();
        reader.join().unwrap();
        assert_eq!(queued.lost(), 0);
    }

    #[test]
    fn a_disk_without_space_is_an_error_later() {
        let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut waits = Queued::new(full(), 64 << 10, WhenFull::Wait);
        waits.write_all(LINE).unwrap();
        assert_eq!(waits.drain(None).unwrap_err().kind(), io::ErrorKind::StorageFull);
        let mut loses = Queued::new(full(), 64 << 10, WhenFull::Lose);
        loses.write_all(LINE).unwrap();
        while loses.lost() == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(loses.fares().unwrap_err().kind(), io::ErrorKind::StorageFull);
        loses.write_all(LINE).unwrap();
    }
}
