//! Debian's package tools, as they are set up here: what is installed, and installing.

use std::collections::HashSet;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::packages::Package;
use crate::proc::{as_root, run};
use crate::repo::find_program;

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
            redis-server | supervisor | haproxy | prometheus | prometheus-alertmanager) systemctl disable --quiet "$name" ;;
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
