//! `cargo xtask dist`: builds a Debian package, installs it into a directory, and purges it again.

mod check;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::proc::{cargo, heading, output, run as run_command};
use crate::repo;

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Where the package is put; target/dist if not given
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(|| repo::target_dir().join("dist"));
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    heading("build");
    run_command(cargo().args(["build", "--release", "--locked", "--package", "fdtrace"]))?;
    let program = repo::target_dir().join("release/fdtrace");
    let epoch = epoch()?;

    heading("package");
    let package = build(&program, &out, epoch)?;
    println!("{}: {} KiB", package.display(), fs::metadata(&package)?.len() / 1024);

    heading("checks of the package");
    let again = tempfile::tempdir()?;
    let second = build(&program, again.path(), epoch)?;
    if fs::read(&package)? != fs::read(&second)? {
        bail!("built twice from the same files, the package is not the same");
    }
    println!("built twice, it is the same");
    check::package(&package)
}

/// Builds the package of this program, without looking at it, into a directory.
pub(crate) fn package(program: &Path, out: &Path) -> Result<PathBuf> {
    build(program, out, epoch()?)
}

/// The time of every file in the package: `SOURCE_DATE_EPOCH`, or that of the commit.
fn epoch() -> Result<u64> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return epoch.parse().context("SOURCE_DATE_EPOCH is no number of seconds");
    }
    let mut git = Command::new("git");
    git.current_dir(repo::root()).args(["log", "-1", "--format=%ct"]);
    let time = output(&mut git).context("set SOURCE_DATE_EPOCH where there is no git")?;
    time.trim().parse().context("the time of the commit")
}

fn build(program: &Path, out: &Path, epoch: u64) -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let stage = tempfile::tempdir()?;
    let size = tree::lay(stage.path(), program, epoch)?;
    let depends = depends(program)?;
    let control = format!(
        "Package: fdtrace\nVersion: {version}\nArchitecture: {architecture}\n\
         Maintainer: The fdtrace authors <maintainers@fdtrace.invalid>\n\
         Installed-Size: {size}\nDepends: {depends}\nSection: admin\nPriority: optional\n\
         Description: tells which process runs out of descriptors or listen queues\n \
         Watches every process of the host with eBPF, and says which one, on which\n \
         port, cannot accept connections, why, and what to do: by a command, and by\n \
         a daemon with metrics for Prometheus.\n"
    );
    tree::control(stage.path(), &control)?;
    let package = out.join(format!("fdtrace_{version}_{architecture}.deb"));
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.env("SOURCE_DATE_EPOCH", epoch.to_string()).arg("--root-owner-group");
    run_command(dpkg.arg("-Zxz").arg("--build").arg(stage.path()).arg(&package))?;
    Ok(package)
}

/// The packages with the libraries that the program is linked with, and which versions it needs.
fn depends(program: &Path) -> Result<String> {
    // It works in a source package.
    let source = tempfile::tempdir()?;
    fs::create_dir(source.path().join("debian"))?;
    fs::write(
        source.path().join("debian/control"),
        "Source: x\n\nPackage: x\nArchitecture: any\n",
    )?;
    let mut shlibdeps = Command::new("dpkg-shlibdeps");
    shlibdeps.current_dir(source.path()).arg("-O").arg(program);
    let text = output(&mut shlibdeps).context("from the package dpkg-dev")?;
    let line = text.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    line.map(str::to_owned).context("dpkg-shlibdeps names no dependencies")
}
