//! A look at the host for `fdtrace doctor`: what it has, which forms it allows, what stays hidden.
//!
//! Every form of every probe is attached once and taken back: what a host allows is known by trying.

mod capabilities;
mod costs;
mod facts;
mod forms;
mod host;
mod unseen;

pub use self::costs::Timing;

use std::path::Path;

use self::host::HostFacts;
use super::{
    HostError, Options,
    load::{Loaded, index},
    records::Buffer,
    support::{Support, may_trace, read_btf},
};
use crate::model::{BlindSpot, Fact, ProbeExamined};

/// What was found without a program that stays.
#[derive(Debug)]
pub struct Examination {
    host: HostFacts,
    /// Each probe with its forms; what is used is not known yet.
    pub probes: Vec<ProbeExamined>,
}

impl Examination {
    /// Looks at the host and tries every form. Must run before other threads exist.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let security = host::mount_securityfs();
        // Before anything of ours is mounted.
        let mut host = HostFacts::read(Path::new("/"), &options.btf, security.as_ref());
        let support = look(options);
        let choose = |support| Buffer::choose(support, options.request.buffer);
        let buffer = support.as_ref().ok().map(choose);
        host.buffer = buffer.map(|buffer| buffer.map_err(|error| error.to_string()));
        let probes = if host.capabilities.is_some_and(|held| !may_trace(held)) {
            forms::untried(support.as_ref())
        } else {
            match Loaded::new(options).and_then(|mut loaded| forms::try_all(&mut loaded)) {
                Ok(probes) => probes,
                // Attaching will fail for the same reason, and say which.
                Err(error) => {
                    log::debug!("nothing is tried: {error:#}");
                    forms::impossible()
                }
            }
        };
        Self { host, probes }
    }

    /// `uname -r`
    #[must_use]
    pub fn kernel(&self) -> &str {
        &self.host.kernel
    }

    /// The facts, each with what follows from it.
    #[must_use]
    pub fn facts(&self) -> Vec<Fact> {
        facts::judge(&self.host)
    }

    /// What stays hidden with those forms. `tells_skips`: whether the kernel counts the runs of a
    /// program that it skips.
    #[must_use]
    pub fn unseen(&self, tells_skips: bool) -> Vec<BlindSpot> {
        unseen::unseen(&self.probes, &self.host, tells_skips)
    }
}

/// What can be seen of the host's attach points without privileges.
fn look(options: &Options) -> Result<Support, HostError> {
    let bytes = read_btf(&options.btf)?;
    Ok(Support::look(&index(&bytes, &options.btf)?))
}
