//! Debian's kernels, unpacked by `cargo xtask setup` and installed nowhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::repo;

/// The series that are tested: the oldest that Debian supports, and one with what came since.
pub(crate) const SERIES: [&str; 2] = ["6.1", "6.12"];

pub(crate) struct Kernel {
    /// What `uname -r` says in it.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    pub(crate) modules: PathBuf,
}

/// Where the kernel of a series is unpacked.
pub(crate) fn dir(series: &str) -> PathBuf {
    repo::target_dir().join("vm").join(series)
}

impl Kernel {
    pub(crate) fn find(series: &str) -> Result<Self> {
        Self::below(&dir(series))
            .with_context(|| format!("there is no {series} kernel: run `cargo xtask setup`"))
    }

    fn below(dir: &Path) -> Result<Self> {
        let boot = dir.join("boot");
        let entries =
            fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(release) = name.strip_prefix("vmlinuz-") {
                let modules = dir.join("lib/modules").join(release);
                return Ok(Self { release: release.to_owned(), image: path.clone(), modules });
            }
        }
        anyhow::bail!("no vmlinuz in {}", boot.display())
    }
}
