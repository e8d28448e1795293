//! Debian's kernels, put where `cargo xtask vm` finds them.

use anyhow::{Result, bail};

use super::archive::{Archive, Source};
use crate::vm::arch::Arch;
use crate::vm::kernel::{Kernel, Series};

/// How many kernels of a suite are tried: its lists may name some that are served no more.
const TRIES: usize = 4;

/// Unpacks the newest kernel of a series. It is not installed: it is no kernel for this machine.
pub(crate) fn unpack(series: &Series, arch: Arch, mirror: Option<&str>) -> Result<()> {
    // Nearly every kernel is a security update, and the lists of those are small. They are the
    // first to go from a mirror when a release grows old.
    for suite in [format!("{}-security", series.release), series.release.to_owned()] {
        let source = Source::main(&suite, mirror)?;
        let archive = Archive::read(&suite, arch.debian(), &[source])?;
        let names = archive.names(&format!("linux-image-{}.", series.name))?;
        for name in newest_first(names, arch).iter().take(TRIES) {
            match archive.unpack(name, &Kernel::dir(series, arch)) {
                Ok(()) => return Ok(()),
                Err(error) => println!("not this one: {error:#}"),
            }
        }
    }
    bail!("no Linux {} for {} could be downloaded", series.name, arch.debian())
}

/// The packages with a kernel for clouds, which has all we need and is the smallest. Those signed
/// for Secure Boot have the same contents as those that are not.
fn newest_first(mut names: Vec<String>, arch: Arch) -> Vec<String> {
    let flavour = format!("-cloud-{}", arch.debian());
    names.retain(|name| name.strip_suffix("-unsigned").unwrap_or(name).ends_with(&flavour));
    names.sort_by_key(|name| (numbers(name), !name.ends_with("-unsigned")));
    names.reverse();
    names
}

/// The numbers in a name: enough to order two kernels of one series.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Arch, newest_first};

    #[test]
    fn kernels_are_ordered_by_number_not_by_letter() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-dbg",
            "linux-image-6.1.0-57-cloud-arm64",
            "linux-image-6.1.0-57-amd64",
        ];
        let ordered = newest_first(names.map(str::to_owned).to_vec(), Arch::X86_64);
        assert_eq!(ordered, [names[2], names[1], names[0]]);
        let names = ["linux-image-6.12.117+deb13-cloud-arm64", "linux-image-6.12.99-cloud-arm64"];
        assert_eq!(newest_first(names.map(str::to_owned).to_vec(), Arch::Arm64), names);
    }
}
