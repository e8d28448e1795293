//! `cargo xtask setup`: installs what building the eBPF object and running every test needs. It
//! looks first, so that a second run changes nothing and asks no package archive.

mod apt;
mod bpf_linker;
mod packages;

use std::fs;

use anyhow::{Result, bail};

use crate::vm::kernel::{self, Kernel};
use packages::{PACKAGES, Package};

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only what building and linting the eBPF object needs
    #[arg(long)]
    ebpf_only: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted: Vec<_> = PACKAGES.iter().filter(|p| !args.ebpf_only || p.for_ebpf).collect();
    if !is_debian_like() {
        explain_by_hand(&wanted);
        bail!("this distribution is neither Debian nor made from it: install the above by hand");
    }
    let missing = apt::missing(&wanted)?;
    let kernels: Vec<_> = kernel::SERIES
        .into_iter()
        .filter(|series| !args.ebpf_only && Kernel::find(series).is_err())
        .collect();

    if !missing.is_empty() || !kernels.is_empty() {
        println!("reading the package lists");
        apt::update()?;
    }
    if missing.is_empty() {
        println!("packages: all {} are there", wanted.len());
    } else {
        for package in &missing {
            println!("installing {}: {}", package.name, package.why);
        }
        apt::install(&missing)?;
    }
    bpf_linker::install()?;
    if args.ebpf_only {
        return Ok(());
    }
    for series in kernel::SERIES {
        if kernels.contains(&series) {
            println!("unpacking Debian's newest {series} kernel for cargo xtask vm");
            apt::unpack_kernel(series)?;
        }
        println!("kernel {series}: {}", Kernel::find(series)?.release);
    }
    Ok(())
}

/// Whether packages have Debian's names and come through apt.
fn is_debian_like() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| os_release_is_debian_like(&text))
}

fn os_release_is_debian_like(text: &str) -> bool {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| matches!(*key, "ID" | "ID_LIKE"))
        .flat_map(|(_, value)| value.trim_matches(['"', '\'']).split_whitespace())
        .any(|id| matches!(id, "debian" | "ubuntu"))
}

fn explain_by_hand(wanted: &[&Package]) {
    println!("needed, by the names of Debian's packages:");
    for package in wanted {
        println!("  {:24} {}", package.name, package.why);
    }
    println!("  {:24} {}", "bpf-linker", bpf_linker::BY_HAND);
    println!(
        "instead of the first packages: rustup's nightly toolchain with its rust-src component"
    );
    println!("kernels for cargo xtask vm: unpack a vmlinuz and its modules as");
    println!("  target/vm/SERIES/boot/vmlinuz-RELEASE and target/vm/SERIES/lib/modules/RELEASE");
}

#[cfg(test)]
mod tests {
    use super::os_release_is_debian_like;

    #[test]
    fn debian_and_its_children_are_known() {
        assert!(os_release_is_debian_like("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(os_release_is_debian_like("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!os_release_is_debian_like("ID=fedora\nHOME_URL=debian\n"));
    }
}
