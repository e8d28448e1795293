//! Which compiler builds the eBPF crate. Debian's rustc-web comes with core compiled for BPF and
//! is preferred, because its package pins it; elsewhere rustup's nightly builds core from source.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::proc::{cargo, output};
use crate::repo::{self, find_program, search_path};

pub(crate) const TARGET: &str = "bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
const MISSING: &str = "the eBPF object cannot be built here. On Debian: \
    `cargo xtask setup --ebpf-only`. Elsewhere: `rustup toolchain install nightly --component \
    rust-src`, `cargo install bpf-linker`, and LLVM's llvm-objcopy";

pub(crate) struct Toolchain {
    kind: Kind,
    pub(crate) sysroot: PathBuf,
    pub(crate) objcopy: PathBuf,
    linker: PathBuf,
}

#[derive(Clone, Copy)]
enum Kind {
    Debian,
    Nightly,
}

impl Toolchain {
    pub(crate) fn find() -> Result<Self> {
        let (kind, sysroot) = debian_sysroot()
            .or_else(nightly_sysroot)
            .context("there is neither Debian's rustc-web with core for BPF nor a nightly")
            .context(MISSING)?;
        let linker =
            find_program("bpf-linker").context("there is no bpf-linker").context(MISSING)?;
        let objcopy = objcopy(&sysroot).context("there is no llvm-objcopy").context(MISSING)?;
        Ok(Self { kind, sysroot, objcopy, linker })
    }

    /// Cargo, about to do `verb` for the eBPF crate.
    pub(crate) fn cargo(&self, verb: &str) -> Command {
        match self.kind {
            Kind::Debian => self.prepared(cargo(), verb),
            Kind::Nightly => self.prepared(nightly(), verb),
        }
    }

    /// Cargo, about to lint the eBPF crate; `None` where the toolchain comes without clippy.
    pub(crate) fn clippy(&self) -> Option<Command> {
        // Not `cargo clippy` for Debian's: that finds the driver of another compiler first.
        let clippy = || match self.kind {
            Kind::Debian => Command::new(DEBIAN_CLIPPY),
            Kind::Nightly => nightly(),
        };
        output(clippy().args(["clippy", "--version"])).ok()?;
        Some(self.prepared(clippy(), "clippy"))
    }

    fn prepared(&self, mut cargo: Command, verb: &str) -> Command {
        for (name, _) in env::vars_os() {
            if name.to_str().is_none_or(changes_the_build) {
                cargo.env_remove(name);
            }
        }
        cargo.arg(verb).current_dir(repo::root());
        match self.kind {
            // rustc calls the target and its linker flavour unstable; cargo is the stable one.
            Kind::Debian => cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1"),
            Kind::Nightly if verb == "clean" => &mut cargo,
            Kind::Nightly => cargo.args(["-Z", "build-std=core"]),
        };
        if let Some(dir) = self.linker.parent() {
            let dirs = [dir.to_path_buf()].into_iter().chain(search_path());
            if let Ok(path) = env::join_paths(dirs) {
                cargo.env("PATH", path);
            }
        }
        cargo.args(["--locked", "--quiet", "--package", "fdtrace-ebpf", "--target", TARGET]);
        cargo
    }

    /// What each tool that has a part in the object's bytes says its version is.
    pub(crate) fn versions(&self) -> Result<BTreeMap<String, String>> {
        let rustc = match self.kind {
            Kind::Debian => output(Command::new(DEBIAN_RUSTC).arg("-vV"))?,
            Kind::Nightly => {
                output(Command::new("rustup").args(["run", "nightly", "rustc", "-vV"]))?
            }
        };
        let cargo = match self.kind {
            Kind::Debian => output(cargo().arg("-V"))?,
            Kind::Nightly => output(nightly().arg("-V"))?,
        };
        let linker = output(Command::new(&self.linker).arg("--version"))?;
        let objcopy = output(Command::new(&self.objcopy).arg("--version"))?;
        let line = |text: &str, label: &str| {
            let found = text.lines().find_map(|line| line.trim().strip_prefix(label));
            found.unwrap_or(text).trim().to_owned()
        };
        Ok(BTreeMap::from([
            ("bpf-linker".to_owned(), line(&linker, "bpf-linker ")),
            ("cargo".to_owned(), line(&cargo, "cargo ")),
            ("llvm".to_owned(), line(&rustc, "LLVM version: ")),
            ("llvm-objcopy".to_owned(), line(&objcopy, "Debian LLVM version ")),
            ("rustc".to_owned(), line(&rustc, "rustc ")),
        ]))
    }

    /// The source of a core that came compiled, if it is where its debug information says it was.
    pub(crate) fn core_sources(&self) -> Option<PathBuf> {
        let version = output(Command::new(DEBIAN_RUSTC).arg("-V")).ok()?;
        let path = Path::new("/usr/src").join(format!("rustc-{}", version.split(' ').nth(1)?));
        (matches!(self.kind, Kind::Debian) && path.is_dir()).then_some(path)
    }
}

fn debian_sysroot() -> Option<(Kind, PathBuf)> {
    let sysroot = output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"])).ok()?;
    let sysroot = PathBuf::from(sysroot.trim());
    sysroot.join("lib/rustlib").join(TARGET).is_dir().then_some((Kind::Debian, sysroot))
}

fn nightly_sysroot() -> Option<(Kind, PathBuf)> {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    let sysroot = PathBuf::from(output(&mut rustc).ok()?.trim());
    sysroot.join("lib/rustlib/src/rust/library/core").is_dir().then_some((Kind::Nightly, sysroot))
}

fn nightly() -> Command {
    let mut cargo = Command::new("rustup");
    cargo.args(["run", "nightly", "cargo"]);
    cargo
}

/// The one of the compiler's LLVM first: under Debian's names, then as rustup's llvm-tools.
fn objcopy(sysroot: &Path) -> Option<PathBuf> {
    let named = ["llvm-objcopy-22", "llvm-objcopy", "rust-objcopy"];
    named.into_iter().find_map(find_program).or_else(|| {
        let hosts = sysroot.join("lib/rustlib").read_dir().ok()?;
        hosts
            .filter_map(Result::ok)
            .map(|host| host.path().join("bin/llvm-objcopy"))
            .find(|path| path.is_file())
    })
}

/// Whether a variable of our environment could make the object another one. What tells cargo where
/// its registry and its network are stays.
fn changes_the_build(name: &str) -> bool {
    let exact = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR"];
    let prefixes = ["RUSTC", "CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_"];
    exact.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::changes_the_build;

    #[test]
    fn a_users_flags_do_not_reach_the_object() {
        for name in ["RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_PROFILE_RELEASE_LTO"] {
            assert!(changes_the_build(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "PATH"] {
            assert!(!changes_the_build(name), "{name}");
        }
    }
}
