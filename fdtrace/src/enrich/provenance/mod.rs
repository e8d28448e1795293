//! Why a process's limit is what it is: everything there is to read about it.
//!
//! In: a process id. Out: a [`Provenance`]. Only files are read, below a root that the caller
//! names; what cannot be read is told with the reason. It takes a few milliseconds and is done
//! once for each episode, never for each failure.

mod chain;
mod container;
mod glob;
mod go_version;
mod nginx;
mod pam;
mod program;
mod role;
mod root;
mod run_script;
mod search;
mod supervisord;
mod sysctl;
mod systemd;
mod users;

use std::{
    io,
    path::{Path, PathBuf},
};

use self::{chain::Chain, root::Root, search::Search};
use super::worker::{self, Worker};
use crate::model::{ChainEnd, Pid, Provenance, Runtime, Sysctls};

/// The same as [`read`], on a thread of its own.
pub fn start(root: PathBuf, pid: Pid) -> io::Result<Worker<Provenance>> {
    worker::spawn("fdtrace-limit", move |_| Ok(read(&root, pid)))
}

/// Reads all about the limit of a process.
///
/// `root` is `/` but for tests and for a host whose tree is mounted elsewhere: `proc`, `etc`, `run`,
/// `usr` and `var` are looked for below it. Files that a process in a container uses are read
/// through its own root in `proc`.
///
/// A process that is gone has an empty chain.
#[must_use]
pub fn read(root: &Path, pid: Pid) -> Provenance {
    let host = match Root::open(root) {
        Ok(host) => host,
        Err(error) => {
            let what = format!("could not open {}: {}", root.display(), root::reason(&error));
            return nothing(what);
        }
    };
    let Chain { members, end, unknown } = chain::read(&host, pid);
    let mut search = Search { host: &host, members: &members, unknown, nr_open: None };
    let system = sysctl::read(&host, &mut search.unknown);
    search.nr_open = system.nr_open.value;
    let runtime =
        members.first().map_or(Runtime::Unknown, |own| program::runtime(&host, &own.ancestor));
    let (settings, login) = search.settings(&runtime);
    let mut unknown = search.unknown;
    let mut seen = std::collections::BTreeSet::new();
    unknown.retain(|what| seen.insert(what.clone()));
    let mut chain: Vec<_> = members.into_iter().map(|member| member.ancestor).collect();
    for (ancestor, settings) in chain.iter_mut().zip(settings) {
        ancestor.settings = settings;
    }
    if let Some(own) = chain.first().and_then(|own| own.limits) {
        for ancestor in chain.iter_mut().skip(1) {
            ancestor.go = program::go_above(&host, ancestor, own);
        }
    }
    Provenance { chain, chain_end: end, runtime, login, system, unknown }
}

fn nothing(what: String) -> Provenance {
    Provenance {
        chain: Vec::new(),
        chain_end: ChainEnd::Unreadable(what.clone()),
        runtime: Runtime::Unknown,
        login: None,
        system: Sysctls::default(),
        unknown: vec![what],
    }
}
