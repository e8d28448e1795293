//! Building what runs in the machine.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::arch::Arch;
use super::cross;
use crate::proc::{cargo, output_with_progress};
use crate::repo::find_program;

pub(crate) struct Programs {
    pub(crate) fdtrace: PathBuf,
    pub(crate) tests: PathBuf,
}

/// The parts of cargo's messages that say where an executable is.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

/// Builds both with the very command that the tests on this machine use. `cargo build` for fdtrace
/// alone would not be less: without the tests' dependencies cargo chooses other features for some
/// packages, and compiles most of them a second time.
pub(crate) fn programs(arch: Arch, tests: &str) -> Result<Programs> {
    let mut command = match arch {
        Arch::X86_64 => cargo(),
        Arch::Arm64 => cross::cargo()?,
    };
    command.args(["test", "--no-run", "--release", "--package", "fdtrace", "--test", tests]);
    command.args(["--quiet", "--message-format=json-render-diagnostics"]);
    let messages = output_with_progress(&mut command)?;
    let executable = |kind: &str, name: &str| {
        let path = messages.lines().find_map(|line| {
            let message: Message = serde_json::from_str(line).ok()?;
            let target = message.target?;
            let is_it = target.name == name && target.kind.iter().any(|of| of == kind);
            message.executable.filter(|_| is_it)
        });
        path.with_context(|| format!("cargo named no {kind} {name} that it built"))
    };
    Ok(Programs { fdtrace: executable("bin", "fdtrace")?, tests: executable("test", tests)? })
}

/// A static busybox for the machine.
pub(crate) fn busybox(arch: Arch) -> Option<PathBuf> {
    match arch {
        Arch::X86_64 => find_program("busybox"),
        Arch::Arm64 => Some(cross::unpacked(cross::BUSYBOX).join("bin/busybox")),
    }
    .filter(|path| path.is_file())
}
