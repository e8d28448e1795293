//! What the programs themselves log, by aya-log: with `--verbose` only. Where it is off the verifier
//! does not even look at that code, of which there is as much as of all the rest.

use std::{future::pending, io};

use anyhow::Context as _;
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{LevelFilter, Log};
use tokio::io::{Interest, unix::AsyncFd};

use super::records::Buffer;

/// Size of its ring buffer.
pub(super) const BYTES: u32 = 64 << 10;

/// The level for the programs, whose levels are numbered as ours. Their log is a ring buffer: without
/// those it is off.
pub(super) fn level(buffer: Buffer) -> u8 {
    match (buffer, log::max_level()) {
        (Buffer::Ring, level) if level >= LevelFilter::Debug => level as u8,
        _ => 0,
    }
}

/// The loader's end of it.
pub(super) struct ProgramLog(Option<AsyncFd<EbpfLogger<&'static dyn Log>>>);

impl ProgramLog {
    /// Must run inside a tokio runtime.
    pub(super) fn open(ebpf: &mut Ebpf, buffer: Buffer) -> anyhow::Result<Self> {
        if level(buffer) == 0 {
            return Ok(Self(None));
        }
        let log = EbpfLogger::init(ebpf).context("find the programs' log")?;
        // SAFETY: it holds one map for life and always gives that map's descriptor.
        let log = unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) };
        Ok(Self(Some(log.map_err(io::Error::from).context("poll the programs' log")?)))
    }

    /// Writes what comes to our log, and ends only when that fails.
    pub(super) async fn run(&mut self) -> io::Result<()> {
        let Some(log) = &mut self.0 else { return pending().await };
        loop {
            let mut ready = log.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }

    /// Writes what is there.
    pub(super) fn flush(&mut self) {
        if let Some(log) = &mut self.0 {
            log.get_mut().flush();
        }
    }
}
