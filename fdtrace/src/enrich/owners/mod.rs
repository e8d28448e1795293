//! Which processes own a socket.
//!
//! Clients are refused where no process runs, so the kernel side knows only the socket then. Who
//! holds it is in `/proc/PID/fd`, of every process: looking there takes as long as the host has
//! descriptors. It is done on a thread of its own, for all sockets at once, and is kept to a tenth
//! of one core however many sockets are asked for.

mod cache;
#[cfg(test)]
mod fixture;
mod identity;
mod scan;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::sleep_until};

pub use self::identity::same_process;
pub(super) use self::identity::started;
use self::{
    cache::{Cache, MOST_CACHED},
    identity::by_lead,
    scan::Scan,
};
use crate::model::{Comm, ProcessId};

/// Between the end of a scan and the start of the next there is at least this,
const REST: Duration = Duration::from_millis(200);
/// and at least so many times as long as the scan took.
const REST_PER_SCAN: u32 = 10;
/// After a scan that could not be made.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The scan keeps nothing large on its stack.
const STACK: usize = 256 * 1024;

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Which. [`same_process`] compares it with an id of the kernel side.
    pub id: ProcessId,
    /// Its short name.
    pub comm: Comm,
}

/// Looks once who owns each of the sockets, the lead first, and waits for the answer: for commands
/// that ask a single time. A socket of which nobody is found is missing.
pub fn owners_now(
    proc_root: &Path,
    sockets: impl IntoIterator<Item = u64>,
) -> io::Result<HashMap<u64, Vec<Owner>>> {
    let root = scan::open_root(proc_root)?;
    let mut found = scan::scan(&root, &sockets.into_iter().collect(), || false)?.found;
    for owners in found.values_mut() {
        owners.sort_by(by_lead);
    }
    Ok(found)
}

/// Looks up and remembers who owns which socket, by the socket's inode.
///
/// To ask, [`request`](Self::request); to be told, wait for [`scanned`](Self::scanned), which also
/// is what starts a scan; the answer is in [`known`](Self::known). None of them blocks.
#[derive(Debug)]
pub struct Owners {
    path: PathBuf,
    /// `/proc`, open from the start: a host at its limit of open files might not let us later.
    root: Option<Arc<OwnedFd>>,
    cache: Cache,
    /// For the next scan.
    wanted: HashSet<u64>,
    running: Option<Running>,
    /// When the next scan may start.
    rested: Option<Instant>,
    /// The last scan could not be made.
    failing: bool,
}

#[derive(Debug)]
struct Running {
    began: Instant,
    /// All it looks for: what was wanted, and what is remembered, for that costs nothing more.
    targets: Arc<HashSet<u64>>,
    wanted: HashSet<u64>,
    answer: oneshot::Receiver<io::Result<Scan>>,
}

impl Owners {
    /// Reads under `proc_root`, which is `/proc` but for tests and containers.
    #[must_use]
    pub fn new(proc_root: PathBuf) -> Self {
        let root = scan::open_root(&proc_root).ok().map(Arc::new);
        Self {
            path: proc_root,
            root,
            cache: Cache::default(),
            wanted: HashSet::new(),
            running: None,
            rested: None,
            failing: false,
        }
    }

    /// The kernel side saw a process that holds the socket: it called listen(2) or accept(2) on it.
    pub fn note(&mut self, inode: u64, process: ProcessId, comm: &Comm) {
        if inode != 0 {
            self.cache.note(inode, process, comm, Instant::now());
        }
    }

    /// The owners, the lead first; `None` where nobody looked yet, empty where nobody was found.
    ///
    /// What is old is given all the same: [`request`](Self::request) says that it is of interest.
    #[must_use]
    pub fn known(&self, inode: u64) -> Option<&[Owner]> {
        self.cache.get(inode)
    }

    /// Asks for a look at who owns the socket, unless that was looked at a moment ago.
    ///
    /// It may be called for every record. Beyond 4096 sockets that wait for a scan, more are
    /// ignored: they can be asked for again.
    pub fn request(&mut self, inode: u64) {
        let waits = self.running.as_ref().is_some_and(|scan| scan.targets.contains(&inode));
        if inode == 0 || self.cache.is_fresh(inode, Instant::now()) || waits {
            return;
        }
        if self.wanted.len() < MOST_CACHED {
            self.wanted.insert(inode);
        }
    }

    /// Starts a scan when one is wanted and the last is long enough ago, and waits until it has
    /// ended and [`known`](Self::known) knows what it found. Waits forever while none is wanted.
    ///
    /// Nothing is lost when the future is dropped before it is ready.
    pub async fn scanned(&mut self) {
        loop {
            if let Some(running) = &mut self.running {
                let answer = (&mut running.answer).await;
                match answer.unwrap_or_else(|_| Err(io::Error::other("the thread panicked"))) {
                    Ok(scan) => return self.take_in(scan),
                    Err(error) => self.failed(&error),
                }
            }
            if self.wanted.is_empty() {
                pending::<()>().await;
            }
            if let Some(rested) = self.rested {
                sleep_until(rested.into()).await;
            }
            if let Err(error) = self.start() {
                self.failed(&error);
            }
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let root = match &self.root {
            Some(root) => Arc::clone(root),
            None => Arc::clone(self.root.insert(Arc::new(scan::open_root(&self.path)?))),
        };
        let targets: HashSet<u64> =
            self.wanted.iter().copied().chain(self.cache.inodes()).collect();
        let targets = Arc::new(targets);
        let for_thread = Arc::clone(&targets);
        let (sender, answer) = oneshot::channel();
        let began = Instant::now();
        thread::Builder::new().name("fdtrace-owners".to_owned()).stack_size(STACK).spawn(
            move || {
                let scan = scan::scan(&root, &for_thread, || sender.is_closed());
                // Nobody waits any more when fdtrace ends.
                drop(sender.send(scan));
            },
        )?;
        let wanted = std::mem::take(&mut self.wanted);
        self.running = Some(Running { began, targets, wanted, answer });
        Ok(())
    }

    fn take_in(&mut self, scan: Scan) {
        let Some(Running { began, targets, wanted, .. }) = self.running.take() else {
            return;
        };
        let rest = REST.max(scan.took.saturating_mul(REST_PER_SCAN));
        self.rested = Some(began + scan.took + rest);
        self.failing = false;
        self.cache.take_in(scan, began, &targets, &wanted);
    }

    fn failed(&mut self, error: &io::Error) {
        // Once, until it works again.
        let level = if self.failing { log::Level::Debug } else { log::Level::Warn };
        self.failing = true;
        log::log!(level, "cannot look up who owns a socket in {}: {error}", self.path.display());
        if let Some(running) = self.running.take() {
            self.wanted.extend(running.wanted);
        }
        self.rested = Some(Instant::now() + REST_AFTER_FAILURE);
    }
}
