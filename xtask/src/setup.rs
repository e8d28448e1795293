//! `cargo xtask setup`: installs what building the eBPF object and running every test needs. It
//! looks first, so that a second run changes nothing and asks no package archive.

mod apt;
mod archive;
mod arm64;
mod bpf_linker;
mod kernels;
mod packages;
mod userland;

use std::fs;

use anyhow::{Result, bail};

use crate::vm::arch::Arch;
use crate::vm::kernel::{Kernel, SERIES, Series};
use packages::{PACKAGES, Package, Task};

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only what building and linting the eBPF object needs
    #[arg(long)]
    ebpf_only: bool,
    /// Also what `cargo xtask vm --arch arm64` needs
    #[arg(long, conflicts_with = "ebpf_only")]
    arm64: bool,
    /// Also the tools that `cargo xtask bench` measures fdtrace beside
    #[arg(long, conflicts_with = "ebpf_only")]
    bench: bool,
    /// Where Debian's archives are (URL/debian, URL/debian-security) if apt's sources name none
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let wanted: Vec<_> = PACKAGES.iter().filter(|package| args.wants(package.task)).collect();
    if !is_debian_like() {
        explain_by_hand(&wanted);
        bail!("this distribution is neither Debian nor made from it: install the above by hand");
    }
    let missing = apt::missing(&wanted)?;
    let machines: Vec<_> = args.machines().collect();
    let no_kernel = |(series, arch): &(&Series, Arch)| Kernel::find(series, *arch).is_err();

    let no_userland = !args.ebpf_only && !userland::is_there();
    if !missing.is_empty() || machines.iter().any(no_kernel) || no_userland {
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
    for (series, arch) in machines {
        let name = arch.suffixed(series.name);
        if no_kernel(&(series, arch)) {
            println!("unpacking Debian's newest {name} kernel for cargo xtask vm");
            match kernels::unpack(series, arch, args.mirror.as_deref()) {
                // No test needs it, and old releases leave the mirrors.
                Err(error) if !series.held_to => println!("kernel {name}: none: {error:#}"),
                result => result?,
            }
        }
        if let Ok(kernel) = Kernel::find(series, arch) {
            println!("kernel {name}: {}", kernel.release);
        }
    }
    if !args.ebpf_only {
        userland::unpack(args.mirror.as_deref())?;
    }
    if args.arm64 {
        arm64::unpack()?;
    }
    Ok(())
}

impl Args {
    fn wants(&self, task: Task) -> bool {
        match task {
            Task::Ebpf => true,
            Task::Tests => !self.ebpf_only,
            Task::Arm64 => self.arm64,
            Task::Bench => self.bench,
        }
    }

    /// The kernels to have, and for which architecture.
    fn machines(&self) -> impl Iterator<Item = (&'static Series, Arch)> {
        let own = SERIES.iter().filter(|_| !self.ebpf_only).map(|series| (series, Arch::X86_64));
        own.chain(SERIES.iter().filter(|_| self.arm64).map(|series| (series, Arch::Arm64)))
    }
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
