//! Compiling the eBPF crate so that neither the place of the checkout, nor the user's own flags,
//! nor the host's profile can be seen in the object.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::toolchain::{TARGET, Toolchain};
use crate::proc::{cargo, output, run};
use crate::repo;

const RUSTFLAGS: [&str; 3] = [
    // The registers of which machine aya-ebpf reads arguments from.
    r#"--cfg=bpf_target_arch="x86_64""#,
    // BTF is made from debug information, and the verifier's log shows lines by it.
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
];

/// The whole release profile, so that a change made to it for the host's code changes nothing here.
const PROFILE: [(&str, &str); 9] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "thin"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "2"),
    ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false"),
    ("CARGO_PROFILE_RELEASE_INCREMENTAL", "false"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "none"),
];

/// What is fixed here and decides the object: a part of the digest of its sources.
pub(crate) fn settings() -> Vec<String> {
    let flags = RUSTFLAGS.into_iter().map(str::to_owned);
    flags.chain(PROFILE.map(|(name, value)| format!("{name}={value}"))).collect()
}

/// The target directory of the eBPF crate. The host's would do, but for the compiler's lock on it
/// and for `cargo clean` of the host's code.
pub(crate) fn target_dir() -> PathBuf {
    repo::target_dir().join("ebpf")
}

/// Compiles the object and drops from it what nothing that loads it reads: the DWARF, which BTF was made
/// from and which is five times the rest together, and what a linker would have to know of line
/// information, which is a quarter of the rest.
pub(crate) fn object(toolchain: &Toolchain) -> Result<Vec<u8>> {
    // Cargo does not know the linker's version, nor the files that LLVM copies lines of.
    output(toolchain.cargo("clean").arg("--release").env("CARGO_TARGET_DIR", target_dir()))?;
    run(toolchain
        .cargo("build")
        .arg("--release")
        .env("CARGO_TARGET_DIR", target_dir())
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(toolchain)?.join("\u{1f}"))
        .envs(PROFILE))?;
    let built = target_dir().join(TARGET).join("release/fdtrace-ebpf");
    let stripped = target_dir().join("fdtrace.o");
    let dropped = ["--strip-debug", "--remove-section=.rel.BTF.ext"];
    run(Command::new(&toolchain.objcopy).args(dropped).arg(&built).arg(&stripped))?;
    fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))
}

/// Lints the eBPF crate with its own toolchain's clippy; false when that has none.
pub(crate) fn clippy(toolchain: &Toolchain) -> Result<bool> {
    let Some(mut clippy) = toolchain.clippy() else {
        return Ok(false);
    };
    clippy
        .env("CARGO_TARGET_DIR", target_dir())
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS[0])
        .args(["--", "--deny", "warnings"]);
    run(&mut clippy)?;
    Ok(true)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    manifest_path: PathBuf,
    source: Option<String>,
}

/// The flags, with every path of this machine replaced. The workspace becomes `.`, which is where
/// the linker runs: so LLVM still finds the lines of source that it copies for the verifier's log.
/// It must not find those of other packages, which are elsewhere on every machine.
fn rustflags(toolchain: &Toolchain) -> Result<Vec<String>> {
    let metadata = output(cargo().args(["metadata", "--locked", "--format-version", "1"]))?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cargo metadata")?;
    let registries: BTreeSet<_> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some())
        // The manifest's directory has the package's name; the one above it is the registry.
        .filter_map(|package| package.manifest_path.ancestors().nth(2))
        .collect();
    let root = repo::root();
    let core = toolchain.sysroot.join("lib/rustlib/src/rust");
    let remapped = [(root.as_path(), "."), (core.as_path(), "/rustc")]
        .into_iter()
        .chain(registries.into_iter().map(|registry| (registry, "/registry")));
    let flags = RUSTFLAGS.into_iter().map(str::to_owned);
    let remaps = remapped.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    Ok(flags.chain(remaps).collect())
}
