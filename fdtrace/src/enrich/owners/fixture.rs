//! A `/proc` of made-up processes.

use std::{fs, os::unix::fs::symlink, path::Path};

use tempfile::TempDir;

use super::{Owner, identity::started};
use crate::{
    enrich::parse::Stat,
    model::{Comm, Pid, ProcessId},
};

pub(super) struct Fixture(TempDir);

impl Fixture {
    pub(super) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn process(&self, pid: u32, comm: &str, ticks: u64, links: &[&str]) {
        let dir = self.path().join(pid.to_string());
        fs::create_dir_all(dir.join("fd")).unwrap();
        let stat = format!("{pid} ({comm}) S 1 1 1 0 -1 4 2 0 0 0 1 7 0 0 20 0 1 0 {ticks} 9");
        fs::write(dir.join("stat"), stat).unwrap();
        for (fd, link) in links.iter().enumerate() {
            symlink(link, dir.join("fd").join(fd.to_string())).unwrap();
        }
    }

    /// The process ends.
    pub(super) fn end(&self, pid: u32) {
        fs::remove_dir_all(self.path().join(pid.to_string())).unwrap();
    }

    pub(super) fn owner(&self, pid: u32, comm: &str, ticks: u64) -> Owner {
        let stat = Stat { state: b'S', threads: 1, start_ticks: ticks };
        let id = ProcessId { pid: Pid(pid), started: started(stat) };
        assert!(self.path().join(pid.to_string()).exists());
        Owner { id, comm: Comm::from_bytes(comm.as_bytes()) }
    }
}
