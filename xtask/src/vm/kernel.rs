//! Debian's kernels, unpacked by `cargo xtask setup` and installed nowhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::arch::Arch;
use crate::repo;

/// A series of kernels, and the Debian release whose kernel it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) release: &'static str,
    /// Whether every kernel test must pass on it.
    pub(crate) held_to: bool,
}

/// Debian 11, 12 and 13.
pub(crate) const SERIES: [Series; 3] = [
    Series { name: "5.10", release: "bullseye", held_to: false },
    Series { name: "6.1", release: "bookworm", held_to: true },
    Series { name: "6.12", release: "trixie", held_to: true },
];

pub(crate) struct Kernel {
    /// What `uname -r` says in it.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    pub(crate) modules: PathBuf,
}

impl Series {
    /// Those on which every kernel test must pass.
    pub(crate) fn held_to() -> impl Iterator<Item = &'static Self> {
        SERIES.iter().filter(|series| series.held_to)
    }
}

impl Kernel {
    /// Where the kernel of a series is unpacked.
    pub(crate) fn dir(series: &Series, arch: Arch) -> PathBuf {
        repo::target_dir().join("vm").join(arch.suffixed(series.name))
    }

    pub(crate) fn find(series: &Series, arch: Arch) -> Result<Self> {
        Self::below(&Self::dir(series, arch)).with_context(|| {
            format!("there is no {} kernel: run `{}`", arch.suffixed(series.name), arch.setup())
        })
    }

    fn below(dir: &Path) -> Result<Self> {
        let boot = dir.join("boot");
        let entries =
            fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))?;
        for entry in entries {
            let image = entry?.path();
            let name = image.file_name().unwrap_or_default().to_string_lossy();
            if let Some(release) = name.strip_prefix("vmlinuz-") {
                let release = release.to_owned();
                // The second since Debian 13.
                let places = ["lib/modules", "usr/lib/modules"];
                let mut places = places.map(|place| dir.join(place).join(&release)).into_iter();
                let modules = places.find(|place| place.is_dir());
                let modules =
                    modules.with_context(|| format!("no modules in {}", dir.display()))?;
                return Ok(Self { release, image, modules });
            }
        }
        bail!("no vmlinuz in {}", boot.display())
    }
}
