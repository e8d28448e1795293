//! What `cargo xtask vm --arch arm64` needs beside its kernels.

use anyhow::{Result, bail};

use super::archive::{Archive, Source};
use crate::vm::arch::Arch;
use crate::vm::cross;

/// Unpacks the packages of arm64 that are not there yet, from the release that this machine has.
pub(crate) fn unpack() -> Result<()> {
    let packages: Vec<_> = [Some(cross::BUSYBOX.to_owned()), cross::std_package()?]
        .into_iter()
        .flatten()
        .filter(|package| !cross::unpacked(package).is_dir())
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    let sources = Source::of_this_machine()?;
    if sources.is_empty() {
        bail!("apt's sources name no archive of Debian, or their lists were never read");
    }
    let archive = Archive::read("this-release", Arch::Arm64.debian(), &sources)?;
    for package in packages {
        println!("unpacking {package} of arm64");
        archive.unpack(&package, &cross::unpacked(&package))?;
    }
    Ok(())
}
