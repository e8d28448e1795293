//! Debian's package tools: what is installed, installing, and unpacking without installing.

use std::collections::HashSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages::Package;
use crate::proc::{as_root, output, run};
use crate::repo::find_program;
use crate::vm::kernel;

/// Installs with a policy that denies every start of a service, and takes the policy away again
/// however it ends. It is a script because all of it must run as root, and because a shell's trap
/// also runs on Ctrl-C. A policy of the machine's own is put aside meanwhile; one of ours that a
/// killed run left behind is not taken for the machine's.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
saved=$policy.before-xtask-setup
restore() {
    rm -f "$policy"
    if [ -e "$saved" ]; then mv "$saved" "$policy"; fi
}
if [ -e "$policy" ] && ! grep -q 'by cargo xtask setup' "$policy"; then mv "$policy" "$saved"; fi
trap restore EXIT
trap 'exit 130' INT TERM HUP
printf '#!/bin/sh\n# by cargo xtask setup: nothing is started while it installs\nexit 101\n' >"$policy"
chmod 755 "$policy"
# RUNLEVEL is for the init scripts that ask for the run level and not for the policy.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get install --yes --quiet --no-install-recommends "$@"
# Nor at the next boot. Only what was missing is named here: a server that this machine had stays.
if command -v systemctl >/dev/null; then
    for name; do
        case $name in
            nginx-light) systemctl disable --quiet nginx ;;
            redis-server | supervisor | haproxy) systemctl disable --quiet "$name" ;;
        esac
    done
fi
"#;

/// Those that are neither installed nor made needless by a program that is there.
pub(crate) fn missing<'a>(wanted: &[&'a Package]) -> Result<Vec<&'a Package>> {
    // dpkg-query fails when it does not know one of the names, and still tells of the others.
    let known = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status} ${Package}\n"])
        .args(wanted.iter().map(|package| package.name))
        .output()
        .context("cannot run dpkg-query")?;
    let known = String::from_utf8_lossy(&known.stdout);
    let installed: HashSet<_> =
        known.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    let is_there = |package: &Package| {
        installed.contains(package.name)
            || package.unless.is_some_and(|program| find_program(program).is_some())
    };
    Ok(wanted.iter().copied().filter(|package| !is_there(package)).collect())
}

pub(crate) fn update() -> Result<()> {
    run(as_root("apt-get")?.args(["update", "--quiet"]))
}

pub(crate) fn install(packages: &[&Package]) -> Result<()> {
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    println!("$ apt-get install --no-install-recommends {}", names.join(" "));
    let status = as_root("sh")?
        .args(["-c", INSTALL, "cargo-xtask-setup"])
        .args(&names)
        .status()
        .context("cannot run sh")?;
    if !status.success() {
        bail!(
            "apt-get could not install all of them ({status}). Where this release has no \
             rustc-web, rustup's nightly toolchain with rust-src and `cargo install bpf-linker` \
             do as well: install those, and the other packages, by hand"
        );
    }
    Ok(())
}

/// Downloads the newest kernel of a series and unpacks it where `cargo xtask vm` finds it. The
/// package is not installed: it is no kernel for this machine.
pub(crate) fn unpack_kernel(series: &str) -> Result<()> {
    let name = newest_kernel(series)?;
    let dir = kernel::dir(series);
    let parent = dir.parent().context("the kernels' directory has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let download =
        tempfile::tempdir_in(parent).context("cannot make a directory to download to")?;
    run(Command::new("apt-get")
        .args(["download", "--quiet"])
        // apt's own user cannot write here; without this it warns of it.
        .args(["--option", "APT::Sandbox::User=root"])
        .arg(&name)
        .current_dir(&download))?;
    let deb = fs::read_dir(&download)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get download {name} left no package"))?;
    let unpacked = download.path().join("unpacked");
    run(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&unpacked))?;
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    // Renamed at the end, so that what is there under its name is whole.
    fs::rename(&unpacked, &dir).with_context(|| format!("cannot make {}", dir.display()))
}

fn newest_kernel(series: &str) -> Result<String> {
    let prefix = format!("linux-image-{series}.");
    let names = output(Command::new("apt-cache").args(["pkgnames", &prefix]))?;
    names
        .lines()
        .filter(|name| name.ends_with("-cloud-amd64-unsigned"))
        .max_by_key(|name| numbers(name))
        .map(str::to_owned)
        .with_context(|| format!("no package {prefix}*-cloud-amd64-unsigned in apt's lists"))
}

/// The numbers in a name: enough to order two kernels of one series.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn kernels_are_ordered_by_number_not_by_letter() {
        assert!(numbers("linux-image-6.1.0-56-cloud") > numbers("linux-image-6.1.0-9-cloud"));
        assert!(numbers("linux-image-6.12.117+deb12") > numbers("linux-image-6.12.99+deb12"));
    }
}
