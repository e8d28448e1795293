//! Debian's userland for machines with systemd, put where `cargo xtask vm --systemd` finds it.

use anyhow::Result;

use super::archive::{Archive, Source};
use crate::vm::arch::Arch;
use crate::vm::userland;

pub(crate) fn is_there() -> bool {
    userland::dir().is_dir()
}

/// Unpacks it, unless it is there.
pub(crate) fn unpack(mirror: Option<&str>) -> Result<()> {
    if is_there() {
        return Ok(());
    }
    let names = userland::PACKAGES;
    println!("unpacking {} of Debian's {} for machines", names.join(", "), userland::RELEASE);
    let source = Source::main(userland::RELEASE, mirror)?;
    let archive = Archive::read(userland::RELEASE, Arch::X86_64.debian(), &[source])?;
    archive.unpack_all(&names, &userland::dir())
}
