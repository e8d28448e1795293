//! `cargo xtask build-ebpf`: compiles fdtrace-ebpf into the object that is committed under
//! fdtrace/bpf, so that building fdtrace needs stable Rust only. The same sources and tools give
//! the same bytes wherever the checkout is; `--check` holds the committed object to that.

mod compile;
mod record;
mod sources;
mod toolchain;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::repo;
use record::Record;
use toolchain::Toolchain;

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Build elsewhere, compare with the committed object, and fail when they differ
    #[arg(long)]
    check: bool,
}

/// What a rebuild says about the committed object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    Same,
    /// The bytes differ, and the sources or the build are to blame.
    Different,
    /// The bytes differ, as they may: the tools are not those that made the committed object.
    OtherTools,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        return match check()? {
            Checked::Same => Ok(()),
            Checked::Different | Checked::OtherTools => {
                bail!("the committed object is not what its sources build: see above")
            }
        };
    }
    let toolchain = Toolchain::find()?;
    let object = compile::object(&toolchain)?;
    let record = Record::new(&object, &toolchain.versions()?)?;
    let dir = dir();
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    fs::write(object_path(), &object).context("cannot write the object")?;
    record.write()?;
    println!("{}: {} bytes, sha256 {}", object_path().display(), object.len(), record.object);
    Ok(())
}

/// Builds the object from the sources that are here and compares it with the committed one.
pub(crate) fn check() -> Result<Checked> {
    let recorded = Record::read()?;
    let committed = fs::read(object_path()).context("cannot read the committed object")?;
    let toolchain = Toolchain::find()?;
    let built = compile::object(&toolchain)?;
    if built == committed {
        println!("the committed object is what its sources build: sha256 {}", recorded.object);
        return Ok(Checked::Same);
    }
    println!("the committed object differs from what the sources here build");
    let here = toolchain.versions()?;
    if here == recorded.tools {
        println!("commit the result of: cargo xtask build-ebpf");
        if let Some(path) = toolchain.core_sources() {
            println!(
                "but not from this machine: {} is there, and LLVM copies lines of it into the \
                 object for the verifier's log",
                path.display()
            );
        }
        return Ok(Checked::Different);
    }
    println!("the same bytes are promised for the same tools only, and these are others:");
    for (name, version) in &here {
        let before = recorded.tools.get(name).map_or("(not recorded)", String::as_str);
        if before != version {
            println!("  {name}: {version}, recorded: {before}");
        }
    }
    println!("install the recorded tools, or commit the result of: cargo xtask build-ebpf");
    Ok(Checked::OtherTools)
}

/// Lints the eBPF crate with its own toolchain's clippy; false when that has none.
pub(crate) fn clippy() -> Result<bool> {
    compile::clippy(&Toolchain::find()?)
}

fn dir() -> PathBuf {
    repo::root().join("fdtrace/bpf")
}

fn object_path() -> PathBuf {
    dir().join("fdtrace.o")
}

#[cfg(test)]
mod tests {
    use super::record::{Record, sha256};
    use super::{object_path, sources};

    const REBUILD: &str = "run `cargo xtask build-ebpf` and commit fdtrace/bpf";

    #[test]
    fn committed_object_was_built_from_these_sources() {
        let record = Record::read().unwrap();
        let sources = sources::digest().unwrap();
        assert_eq!(sources, record.sources, "fdtrace-ebpf changed since its object: {REBUILD}");
    }

    #[test]
    fn committed_object_is_the_recorded_one() {
        let record = Record::read().unwrap();
        let object = sha256(&std::fs::read(object_path()).unwrap());
        assert_eq!(object, record.object, "fdtrace.o is not the one in fdtrace.toml: {REBUILD}");
    }
}
