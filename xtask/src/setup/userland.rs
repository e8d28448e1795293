//! Debian's userland for machines with systemd, put where `cargo xtask vm --systemd` finds it.

use std::fs;

use anyhow::{Context, Result};

use super::archive::{Archive, Source};
use crate::vm::arch::Arch;
use crate::vm::userland;

pub(crate) use userland::is_there;

/// Unpacks it, unless it is there.
pub(crate) fn unpack(mirror: Option<&str>) -> Result<()> {
    if is_there() {
        return Ok(());
    }
    let names = userland::PACKAGES;
    println!("unpacking {} of Debian's {} for machines", names.join(", "), userland::RELEASE);
    let source = Source::main(userland::RELEASE, mirror)?;
    let archive = Archive::read(userland::RELEASE, Arch::X86_64.debian(), &[source])?;
    archive.unpack_all(&names, &userland::dir())?;
    let list = userland::list();
    fs::write(&list, names.join("\n")).with_context(|| format!("cannot write {}", list.display()))
}
