//! Building for arm64 on a machine of another architecture.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::arch::Arch;
use crate::proc::{self, output};
use crate::repo;

/// Everything in that machine but fdtrace and its tests.
pub(crate) const BUSYBOX: &str = "busybox-static";
const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
/// The compiler that `cargo xtask setup` installs for the eBPF object.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_STD: &str = "libstd-rust-web-dev";

/// Where a package of arm64, `NAME` or `NAME=VERSION`, is unpacked.
pub(crate) fn unpacked(package: &str) -> PathBuf {
    repo::target_dir().join("vm").join(Arch::Arm64.suffixed(package))
}

/// The package with std for arm64, of the very version of Debian's compiler; `None` where the
/// toolchain that builds fdtrace has that target itself (`rustup target add`).
pub(crate) fn std_package() -> Result<Option<String>> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]).current_dir(repo::root());
    if output(&mut rustc).is_ok_and(|dir| PathBuf::from(dir.trim()).is_dir()) {
        return Ok(None);
    }
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Version}", "rustc-web"]);
    let version = output(&mut query).with_context(|| {
        format!("neither has rustup the target {TARGET}, nor is Debian's rustc-web installed")
    })?;
    Ok(Some(format!("{DEBIAN_STD}={version}")))
}

/// Cargo, about to build for arm64. What it builds is static: no library of that architecture need
/// be found for the machine.
pub(crate) fn cargo() -> Result<Command> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let mut cargo = proc::cargo();
    if let Some(package) = std_package()? {
        let sysroot = unpacked(&package).join("usr");
        if !sysroot.is_dir() {
            bail!("there is no {package} for arm64: run `{}`", Arch::Arm64.setup());
        }
        flags.push(format!("--sysroot={}", sysroot.display()));
        cargo.env("RUSTC", DEBIAN_RUSTC);
    }
    cargo
        .env("CARGO_BUILD_TARGET", TARGET)
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER)
        // With a target, cargo does not give these to build scripts and macros.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // The compiler may be another one than that of the host's code.
        .env("CARGO_TARGET_DIR", repo::target_dir().join("arm64"));
    Ok(cargo)
}
