//! bpf-linker, built here against Debian's LLVM: its own default would load the LLVM of a rustc
//! that came from rustup.

use std::process::Command;

use anyhow::{Context, Result};

use crate::proc::{cargo, output, run};
use crate::repo::find_program;

const VERSION: &str = "0.13.0";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// What to tell where Debian's packages are not to be had.
pub(crate) const BY_HAND: &str = "cargo install bpf-linker --version 0.13.0";

/// Builds and installs bpf-linker, unless this version is there.
pub(crate) fn install() -> Result<()> {
    if let Some(program) = find_program("bpf-linker")
        && output(Command::new(program).arg("--version"))
            .is_ok_and(|text| text.split_whitespace().next_back() == Some(VERSION))
    {
        println!("bpf-linker {VERSION} is there");
        return Ok(());
    }
    println!("installing bpf-linker {VERSION}: links the eBPF object; takes a minute");
    let mut cargo = cargo();
    // Flags for the host's code are not for this, and neither is its target directory.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    run(cargo
        .args(["install", "bpf-linker", "--quiet", "--locked", "--force", "--version", VERSION])
        .args(["--no-default-features", "--features", "llvm-22"])
        .env("LLVM_PREFIX", LLVM_PREFIX))
    .context("bpf-linker was not built")
}
